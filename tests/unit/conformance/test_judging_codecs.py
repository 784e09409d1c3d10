"""The kit for clients tells bytes that stand for other numbers, with encoders that it does not share."""

import numpy as np
import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.conformance.client import codecs
from fedbbpt.conformance.results import Broken
from fedbbpt.v1 import coordinator_pb2 as pb

LINKS = {
    "float32": [pb.CODEC_FLOAT32],
    "float16": [pb.CODEC_FLOAT16],
    "bfloat16": [pb.CODEC_BFLOAT16],
    "int8": [pb.CODEC_INT8],
    "int4": [pb.CODEC_INT4],
    "rotate+int8": [pb.CODEC_ROTATE, pb.CODEC_INT8],
    "rotate+int4": [pb.CODEC_ROTATE, pb.CODEC_INT4],
}
VALUES = np.random.default_rng(5).normal(size=11)
STEPS = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2, "int8": 0.05, "int4": 1.0}


@pytest.mark.parametrize("name", LINKS)
def test_the_bytes_of_our_codecs_are_right(name: str) -> None:
    encoded = CODECS[name].encode({"losses": VALUES}, np.random.default_rng(0))["losses"]
    dtype, shape = codecs.form(LINKS[name], VALUES.shape)
    assert (encoded.dtype.str, encoded.shape) == (dtype, shape)
    codecs.require(LINKS[name], "losses", encoded, VALUES, 1e-12)


@pytest.mark.parametrize("name", LINKS)
def test_one_wrong_number_is_noticed(name: str) -> None:
    wrong = VALUES.copy()
    wrong[3] += 2 * STEPS[name.removeprefix("rotate+")] * np.abs(VALUES).max()
    encoded = CODECS[name].encode({"losses": wrong}, np.random.default_rng(0))["losses"]
    with pytest.raises(Broken, match="losses"):
        codecs.require(LINKS[name], "losses", encoded, VALUES, 1e-12)


@pytest.mark.parametrize("name", ["int8", "int4", "rotate+int8"])
def test_a_wrong_scale_is_noticed(name: str) -> None:
    encoded = CODECS[name].encode({"losses": 1.01 * VALUES}, np.random.default_rng(0))["losses"]
    with pytest.raises(Broken, match="the scale of losses"):
        codecs.require(LINKS[name], "losses", encoded, VALUES, 1e-12)


def test_a_rotation_by_another_name_is_noticed() -> None:
    encoded = CODECS["rotate+int8"].encode({"mean": VALUES}, np.random.default_rng(0))["mean"]
    with pytest.raises(Broken):
        codecs.require(LINKS["rotate+int8"], "losses", encoded, VALUES, 1e-12)
