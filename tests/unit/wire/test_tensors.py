"""Arrays as messages, and in chunks."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt.errors import ChecksumMismatch, InvalidTensor, MessageTooLarge
from fedbbpt.limits import CHUNK_BYTES
from fedbbpt.v1 import tensor_pb2 as pb
from fedbbpt.wire.tensors import Assembler, bundle, chunks, from_message, labelled, to_message, unlabelled

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8]
finite_arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(finite_arrays)
def test_tensor_survives_the_round_trip(array: np.ndarray) -> None:
    back = from_message(to_message(array), where="x")
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()


@given(st.dictionaries(st.text(min_size=1, max_size=5), finite_arrays, max_size=4))
def test_bundle_survives_the_round_trip(arrays: dict[str, np.ndarray]) -> None:
    announced, data = bundle(arrays)
    assembler = Assembler(announced, limit_bytes=announced.total_bytes)
    for chunk in chunks(data):
        assembler.add(chunk)
    back = assembler.arrays()
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in back.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()
    }


def test_big_endian_arrays_are_sent_little_endian() -> None:
    assert to_message(np.array([1.5], ">f4")).data == np.array([1.5], "<f4").tobytes()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_are_rejected(bad: float) -> None:
    with pytest.raises(InvalidTensor, match="finite"):
        from_message(to_message(np.array([1.0, bad])), where="z")


@pytest.mark.parametrize(
    "message",
    [
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[2], data=b"\0" * 7),
        pb.Tensor(dtype=pb.D_TYPE_UNSPECIFIED, shape=[1], data=b"\0" * 4),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[-1], data=b""),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[1] * 9, data=b"\0" * 4),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[0, 2**62], data=b""),
    ],
)
def test_impossible_tensors_are_rejected(message: pb.Tensor) -> None:
    with pytest.raises(InvalidTensor, match="its place"):
        from_message(message, where="its place")


def test_a_small_bundle_holds_its_bytes_itself() -> None:
    small, large = (np.ones(size, np.uint8) for size in (CHUNK_BYTES, CHUNK_BYTES + 1))
    announced, rest = bundle({"x": small})
    assert (announced.data, rest) == (small.tobytes(), b"")
    assert Assembler(announced, CHUNK_BYTES).complete
    announced, rest = bundle({"x": large})
    assert (announced.data, rest) == (b"", large.tobytes())
    assert not Assembler(announced, CHUNK_BYTES + 1).complete


def test_bytes_of_a_small_bundle_are_checked() -> None:
    announced, _ = bundle({"x": np.ones(4, np.float32)})
    for data, error in ((b"", InvalidTensor), (announced.data[1:], InvalidTensor), (b"x" * 16, ChecksumMismatch)):
        changed = pb.TensorBundle.FromString(announced.SerializeToString())
        changed.data = data
        with pytest.raises(error):
            Assembler(changed, 16).arrays()


def _long_bundle() -> tuple[pb.TensorBundle, list[pb.TensorChunk]]:
    announced, data = bundle({"x": np.arange(CHUNK_BYTES // 4 + 10, dtype=np.float32)})
    return announced, list(chunks(data))


def test_changed_chunk_is_detected() -> None:
    announced, parts = _long_bundle()
    parts[1].data = b"\1" + parts[1].data[1:]
    assembler = Assembler(announced, 1 << 20)
    assembler.add(parts[0])
    with pytest.raises(ChecksumMismatch):
        assembler.add(parts[1])


def test_changed_announcement_is_detected() -> None:
    announced, parts = _long_bundle()
    announced.crc32c ^= 1
    assembler = Assembler(announced, 1 << 20)
    for part in parts:
        assembler.add(part)
    with pytest.raises(ChecksumMismatch):
        assembler.arrays()


def test_missing_chunk_is_detected() -> None:
    announced, parts = _long_bundle()
    assembler = Assembler(announced, 1 << 20)
    with pytest.raises(InvalidTensor, match=r"chunk\.offset"):
        assembler.add(parts[1])
    assembler.add(parts[0])
    with pytest.raises(InvalidTensor, match="262144 bytes of arrays; 262184"):
        assembler.arrays()


def test_too_large_bundle_is_rejected_before_a_byte_is_received() -> None:
    announced, _ = _long_bundle()
    with pytest.raises(MessageTooLarge, match="at most 1000"):
        Assembler(announced, limit_bytes=1000)


@given(st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1, max_size=5), finite_arrays, max_size=4))
def test_arrays_without_descriptions_survive_the_round_trip(arrays: dict[str, np.ndarray]) -> None:
    forms = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    sent = unlabelled(dict(reversed(arrays.items())))
    assert not sent.tensors
    back = labelled(sent, forms, 10**6)
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in back.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()
    }


def test_arrays_without_descriptions_are_no_others() -> None:
    """Kills: reading the bytes of one array as those of another of the same length."""
    sent = unlabelled({"mean": np.ones(4, np.float32)})
    float32, int32 = np.dtype("<f4"), np.dtype("<i4")
    for forms in ({"theta": (float32, (4,))}, {"mean": (int32, (4,))}, {"mean": (float32, (2, 2))}):
        with pytest.raises(ChecksumMismatch, match="corrupted in transit, or are others"):
            labelled(sent, forms, 10**6)
    with pytest.raises(InvalidTensor, match=r"arrays\.data: 16 bytes of arrays; 20 bytes, of mean"):
        labelled(sent, {"mean": (float32, (5,))}, 16)
    sent.data = sent.data[:-1] + b"\0"
    with pytest.raises(ChecksumMismatch):
        labelled(sent, {"mean": (float32, (4,))}, 16)
    with pytest.raises(MessageTooLarge, match="16 bytes of arrays; at most 15"):
        labelled(sent, {"mean": (float32, (4,))}, 15)
