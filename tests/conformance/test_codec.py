"""Every codec keeps the contract of interfaces.Codec."""

import numpy as np
import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Codec
from fedbbpt.types import Arrays

each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


def some_arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "losses": rng.normal(size=20),
        "matrix": rng.normal(size=(3, 4)) * 1e3,
        "small": rng.normal(size=2) * 1e-3,
        "zeros": np.zeros(5),
        "none": np.zeros((0,)),
    }


@each_codec
def test_names_and_shapes_come_back_as_finite_float64(codec: Codec) -> None:
    arrays = some_arrays()
    decoded = codec.decode(codec.encode(arrays, np.random.default_rng(1)))
    assert decoded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert decoded[name].shape == array.shape
        assert decoded[name].dtype == np.float64
        np.testing.assert_allclose(decoded[name], array, atol=np.abs(array).max(initial=0.0) / 120)


@each_codec
def test_an_encoded_array_has_the_bits_in_the_codecs_name(codec: Codec) -> None:
    encoded = codec.encode({"x": np.linspace(-1, 1, 1000)}, np.random.default_rng(1))
    bits = int("".join(filter(str.isdigit, codec.name)))
    assert encoded["x"].nbytes == 1000 * bits // 8
    assert sum(array.nbytes for array in encoded.values()) <= encoded["x"].nbytes + 4


@each_codec
def test_the_same_generator_gives_the_same_bytes(codec: Codec) -> None:
    one = codec.encode(some_arrays(), np.random.default_rng(1))
    other = codec.encode(some_arrays(), np.random.default_rng(1))
    assert {name: array.tobytes() for name, array in one.items()} == {n: a.tobytes() for n, a in other.items()}


@each_codec
def test_arguments_are_not_changed(codec: Codec) -> None:
    arrays, untouched = some_arrays(), some_arrays()
    codec.decode(codec.encode(arrays, np.random.default_rng(1)))
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], untouched[name])


@each_codec
def test_encoded_arrays_add_if_the_codec_is_additive(codec: Codec) -> None:
    """Kills: an int8 codec that claims to be additive; its scales differ."""
    if not codec.additive:
        pytest.skip("does not claim it")
    xs = [np.random.default_rng(seed).normal(size=50) for seed in range(10)]
    encoded = [codec.encode({"x": x}, np.random.default_rng(1))["x"] for x in xs]
    total = codec.decode({"x": np.sum(encoded, axis=0)})["x"]
    np.testing.assert_allclose(total, np.sum(xs, axis=0), rtol=1e-5, atol=1e-5)


@each_codec
@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_encode_refuses_numbers_that_are_not_finite(codec: Codec, broken: float) -> None:
    with pytest.raises(InvalidTensor, match="x: NaN or infinite"):
        codec.encode({"x": np.array([1.0, broken])}, np.random.default_rng(0))


@each_codec
def test_encode_refuses_numbers_out_of_range(codec: Codec) -> None:
    with pytest.raises(InvalidTensor, match=f"x: 1e\\+300 is too large for {codec.name}"):
        codec.encode({"x": np.array([1.0, -1e300])}, np.random.default_rng(0))


@each_codec
def test_decode_refuses_another_type(codec: Codec) -> None:
    encoded = dict(codec.encode({"x": np.ones(3)}, np.random.default_rng(0)))
    encoded["x"] = encoded["x"].astype(np.int32)
    with pytest.raises(InvalidTensor, match="x: elements of type int32"):
        codec.decode(encoded)


def test_float16_refuses_a_number_that_float32_takes() -> None:
    with pytest.raises(InvalidTensor, match=r"too large for float16; a codec of wider range"):
        CODECS["float16"].encode({"x": np.array([7e4])}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("scale", "what"),
    [
        (None, "x: the scale is missing"),
        (np.array([np.nan], np.float32), "NaN or infinite"),
        (np.ones(2, np.float32), "shape"),
        (np.ones(1, np.float64), "elements of type float64"),
    ],
)
def test_int8_refuses_a_broken_scale(scale: np.ndarray | None, what: str) -> None:
    arrays: Arrays = {"x": np.ones(3, np.int8)} | ({} if scale is None else {"x.scale": scale})
    with pytest.raises(InvalidTensor, match=what):
        CODECS["int8"].decode(arrays)
