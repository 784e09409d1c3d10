"""Packed layers give the results of plain ones, and a row the same bits in any batch."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def layers(kind: str) -> tuple[Any, Any]:
    """Returns a layer 48 -> 80, and a model with the same layer packed."""
    from transformers.pytorch_utils import Conv1D

    from fedbbpt.ptm.models.accelerate.packed_linear import pack

    torch.manual_seed(0)
    conv1d: Any = Conv1D
    made = conv1d(80, 48) if kind == "Conv1D" else torch.nn.Linear(48, 80, bias=kind == "with bias")
    packed = torch.nn.Sequential(made)
    pack(packed)
    return made, packed


@pytest.mark.parametrize("kind", ["with bias", "without bias", "Conv1D"])
def test_packed_layer_gives_the_result_of_the_plain_one(kind: str) -> None:
    plain, packed = layers(kind)
    inputs = torch.randn(3, 7, 48)
    with torch.inference_mode():
        assert type(packed[0]) is not type(plain)
        assert torch.allclose(packed(inputs), plain(inputs), atol=1e-5)


def test_row_gives_the_same_bits_alone_and_in_a_batch() -> None:
    _, packed = layers("with bias")
    inputs = torch.randn(100, 48)
    with torch.inference_mode():
        together = packed(inputs)
        for count in (1, 2, 3, 5, 17, 99):
            assert torch.equal(packed(inputs[:count].clone()), together[:count])
