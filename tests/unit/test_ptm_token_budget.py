"""The warm-up of a device stops where larger micro-batches gain little, or where memory ends."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.backends import load

torch = pytest.importorskip("torch")

from fedbbpt.ptm.backends.token_budget import MOST_TOKENS, find_token_budget  # noqa: E402


def seconds(overhead: float, memory: int = 2**30) -> Callable[[int], float]:
    """A device that takes so long for whatever it does, and 1 s for 10,000 tokens, of which so many have room."""

    def measure(tokens: int) -> float:
        if tokens > memory:
            raise torch.OutOfMemoryError("no room")
        return overhead + tokens / 10_000

    return measure


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (seconds(0.0), 1024),  # a larger one is not faster
        (seconds(1.0), 64 * 1024),  # 128 Ki tokens are 7 % faster
        (seconds(1e9), MOST_TOKENS),
        (seconds(1e9, memory=10_000), 4096),  # half of the 8 Ki that there was room for
        (seconds(1e9, memory=1024), 1024),
    ],
)
def test_the_budget_ends_where_doubling_does_not_pay(measure: Callable[[int], float], expected: int) -> None:
    assert find_token_budget(measure, first=1024) == expected


def test_a_device_that_is_not_there_is_named(checkpoint: Callable[[str], Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(InvalidInput, match="device cuda"):
        load(str(checkpoint("gpt2")), device="cuda")


@pytest.mark.parametrize("model", ["fake", "clip"])
def test_other_models_have_no_choice(checkpoint: Callable[[str], Path], model: str) -> None:
    with pytest.raises(InvalidInput, match="models of texts"):
        load("fake" if model == "fake" else str(checkpoint(model)), device="cuda")
