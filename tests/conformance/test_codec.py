"""Every codec keeps the contract of interfaces.Codec."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.codecs import CODECS, SPARSE, codec_of
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Codec
from fedbbpt.types import Arrays

ALL = {**CODECS, **{name: codec_of(name, kept=0.4, point="x") for name in SPARSE}}
each_codec = pytest.mark.parametrize("codec", ALL.values(), ids=ALL.keys())


def some_arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "losses": rng.normal(size=20),
        "matrix": rng.normal(size=(3, 4)) * 1e3,
        "small": rng.normal(size=2) * 1e-3,
        "zeros": np.zeros(5),
        "none": np.zeros((0,)),
    }


def shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


@each_codec
def test_names_and_shapes_come_back_as_finite_float64(codec: Codec) -> None:
    arrays = some_arrays()
    decoded = codec.decode(codec.encode(arrays, np.random.default_rng(1)), shapes(arrays))
    assert decoded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert decoded[name].shape == array.shape
        assert decoded[name].dtype == np.float64
        np.testing.assert_allclose(decoded[name], array, atol=np.abs(array).max(initial=0.0) / 2)


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())
def test_an_encoded_array_has_the_bits_in_the_codecs_name(codec: Codec) -> None:
    encoded = codec.encode({"x": np.linspace(-1, 1, 1024)}, np.random.default_rng(1))
    bits = int("".join(filter(str.isdigit, codec.name)))
    assert encoded.keys() == {"x"}
    assert 0 <= encoded["x"].nbytes - 1024 * bits // 8 <= 4


@each_codec
def test_forms_are_those_of_encoded_arrays(codec: Codec) -> None:
    arrays = some_arrays()
    encoded = codec.encode(arrays, np.random.default_rng(1))
    assert codec.forms(shapes(arrays)) == {name: (array.dtype, array.shape) for name, array in encoded.items()}


@each_codec
def test_the_same_generator_gives_the_same_bytes(codec: Codec) -> None:
    one = codec.encode(some_arrays(), np.random.default_rng(1))
    other = codec.encode(some_arrays(), np.random.default_rng(1))
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}


@each_codec
def test_arguments_are_not_changed(codec: Codec) -> None:
    arrays, untouched = some_arrays(), some_arrays()
    codec.decode(codec.encode(arrays, np.random.default_rng(1)), shapes(arrays))
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], untouched[name])


@each_codec
def test_indices_are_sent_unchanged(codec: Codec) -> None:
    indices: Arrays = {"orders": np.arange(12, dtype=np.uint8).reshape(3, 4)}
    encoded = codec.encode(indices, np.random.default_rng(1))
    assert codec.decode(encoded, shapes(indices))["orders"].tobytes() == indices["orders"].tobytes()


@each_codec
def test_encoded_arrays_add_if_the_codec_is_additive(codec: Codec) -> None:
    """Kills: an int8 codec that claims to be additive; its scales differ."""
    if not codec.additive:
        pytest.skip("does not claim it")
    xs = [np.random.default_rng(seed).normal(size=50) for seed in range(10)]
    encoded = [codec.encode({"x": x}, np.random.default_rng(1))["x"] for x in xs]
    total = codec.decode({"x": np.sum(encoded, axis=0)}, {"x": (50,)})["x"]
    np.testing.assert_allclose(total, np.sum(xs, axis=0), rtol=1e-5, atol=1e-5)


@each_codec
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_encode_refuses_numbers_that_are_not_finite(codec: Codec, broken: float) -> None:
    with pytest.raises(InvalidTensor, match="x: NaN or infinite"):
        codec.encode({"x": np.array([1.0, broken])}, np.random.default_rng(0))


@each_codec
@pytest.mark.parametrize("count", [2, 20])
def test_encode_refuses_numbers_out_of_range(codec: Codec, count: int) -> None:
    with pytest.raises(InvalidTensor, match=r"x: .*e\+(299|300) is too large for "):
        codec.encode({"x": np.full(count, -1e300)}, np.random.default_rng(0))


@each_codec
@pytest.mark.parametrize("count", [3, 30])
def test_decode_refuses_another_type_and_another_length(codec: Codec, count: int) -> None:
    encoded = codec.encode({"x": np.ones(count)}, np.random.default_rng(0))["x"]
    with pytest.raises(InvalidTensor, match="x: elements of type int32"):
        codec.decode({"x": encoded.astype(np.int32)}, {"x": (count,)})
    for wrong in (encoded[:-1], np.concatenate([encoded, encoded[:1]])):
        with pytest.raises(InvalidTensor, match="x: shape"):
            codec.decode({"x": wrong}, {"x": (count,)})


@each_codec
@given(data=st.binary(max_size=80), dtype=st.sampled_from(["i1", "<f4", "<f2", "<f8"]), count=st.integers(0, 40))
def test_decode_answers_any_bytes_with_finite_numbers_or_invalid_tensor(
    codec: Codec, data: bytes, dtype: str, count: int
) -> None:
    array = np.frombuffer(data[: len(data) // 8 * 8], dtype)
    try:
        decoded = codec.decode({"x": array}, {"x": (count,)})["x"]
    except InvalidTensor:
        return
    assert decoded.shape == (count,)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize(("name", "bits"), [("topk+float16", 16), ("topk+int8", 8)])
def test_a_sparse_codec_sends_a_bit_for_each_number_and_those_that_are_kept(name: str, bits: int) -> None:
    encoded = ALL[name].encode({"x": np.linspace(-1, 1, 1024)}, np.random.default_rng(1))["x"]
    assert 0 <= encoded.nbytes - 1024 // 8 - 410 * bits // 8 <= 4


@pytest.mark.parametrize("name", SPARSE)
def test_a_sparse_codec_refuses_other_marks_than_it_makes(name: str) -> None:
    encoded = ALL[name].encode({"x": np.linspace(-1, 1, 20)}, np.random.default_rng(1))["x"]
    for byte, bits in ((0, 0), (2, -128)):
        wrong = encoded.copy()
        wrong[byte] = bits
        with pytest.raises(InvalidTensor, match=r"x: \d+ numbers are marked; 8 of the first 20"):
            ALL[name].decode({"x": wrong}, {"x": (20,)})


def test_float16_refuses_a_number_that_float32_takes() -> None:
    with pytest.raises(InvalidTensor, match=r"too large for float16; a codec of wider range"):
        CODECS["float16"].encode({"x": np.array([7e4])}, np.random.default_rng(0))
