"""The codecs of docs/protocol.md: in which form an array travels, and whether its bytes stand for the right numbers.

int8 and int4 round by chance, so that each number may be one of two.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import draws, numbers
from fedbbpt.conformance.client.numbers import Vector
from fedbbpt.conformance.client.updates import Form
from fedbbpt.conformance.results import Broken
from fedbbpt.v1 import coordinator_pb2 as pb

SHORT = 8
"""Arrays of fewer numbers are not rotated, and travel as float32 in place of integers."""
SCALE_NOISE = 1e-6
"""How far a scale may be above the least one: a float32 has a few steps less than that."""
LEVELS = {pb.CODEC_INT8: 127, pb.CODEC_INT4: 7}


def form(codec: Sequence[pb.Codec.ValueType], shape: tuple[int, ...]) -> Form:
    """Returns the type and the shape in which an array of numbers travels."""
    count = math.prod(shape)
    if pb.CODEC_ROTATE in codec and count >= SHORT:
        count = 1 << (count - 1).bit_length()
        shape = (count,)
    if codec[-1] == pb.CODEC_FLOAT16:
        return "<f2", shape
    if codec[-1] == pb.CODEC_BFLOAT16:
        return "|i1", (2 * count,)
    if codec[-1] in LEVELS and count >= SHORT:
        return "|i1", (4 + (count if codec[-1] == pb.CODEC_INT8 else -(-count // 2)),)
    return "<f4", shape


def require(
    codec: Sequence[pb.Codec.ValueType], name: str, found: npt.NDArray[Any], wanted: Vector, noise: float
) -> None:
    """Raises Broken unless an array stands for the wanted numbers."""
    if pb.CODEC_ROTATE in codec and wanted.size >= SHORT:
        wanted = rotated(name, wanted)
    if codec[-1] == pb.CODEC_FLOAT16:
        _require_between(name, found.astype(np.float64), *(each.astype(np.float16) for each in _around(wanted, noise)))
    elif codec[-1] == pb.CODEC_BFLOAT16:
        halves = np.frombuffer(found.tobytes(), "<u2").astype(np.uint32) << 16
        upper = halves.view(np.float32).astype(np.float64).reshape(wanted.shape)
        _require_between(name, upper, *(_bfloat16(each) for each in _around(wanted, noise)))
    elif codec[-1] in LEVELS and wanted.size >= SHORT:
        _require_integers(name, found.tobytes(), wanted.ravel(), LEVELS[codec[-1]])
    else:
        numbers.require_float32(name, found, wanted, noise)


def rotated(name: str, x: Vector) -> Vector:
    """Returns H D x / sqrt(m), padded with zeros to the next power of two."""
    size = 1 << (x.size - 1).bit_length()
    y = np.zeros(size)
    y[: x.size] = x.ravel()
    y *= draws.signs(draws.derive(0, "rotate", name), size)
    hadamard = np.ones((1, 1))
    while len(hadamard) < size:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    turned: Vector = hadamard @ y / math.sqrt(size)
    return turned


def _around(wanted: Vector, noise: float) -> tuple[Vector, Vector]:
    slack = noise * np.abs(wanted) + numbers.SLACK
    return wanted - slack, wanted + slack


def _bfloat16(x: Vector) -> Vector:
    """Returns numbers rounded to float32, and then to the nearest of its upper two bytes, to the even one at a half."""
    bits = x.astype(np.float32).view(np.uint32)
    even = bits + 0x7FFF + (bits >> 16 & 1)
    return (even & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(np.float64)


def _require_between(name: str, found: Vector, least: npt.NDArray[Any], most: npt.NDArray[Any]) -> None:
    wrong = ~((found >= least) & (found <= most))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise Broken(f"{name}[{at}] stands for {float(found.flat[at])!r}; expected {float(least.flat[at])!r}")


def _require_integers(name: str, data: bytes, wanted: Vector, levels: int) -> None:
    scale, largest = float(np.frombuffer(data[:4], "<f4")[0]), float(np.abs(wanted).max())
    if not largest / levels <= scale * (1 + numbers.NOISE) or scale > largest / levels * (1 + SCALE_NOISE):
        raise Broken(f"the scale of {name} is {scale!r}; expected slightly more than {largest / levels!r}")
    steps = np.frombuffer(data[4:], np.int8)
    if levels == LEVELS[pb.CODEC_INT4]:
        steps = (np.stack([steps << 4, steps], axis=1).ravel() >> 4)[: wanted.size]
    apart = np.abs(steps * scale - wanted)
    if (np.abs(steps.astype(np.int64)) > levels).any() or (apart >= scale * (1 + SCALE_NOISE)).any():
        at = int(apart.argmax())
        told = f"{int(steps[at])} x {scale!r}; expected {float(wanted[at])!r}, within one step"
        raise Broken(f"{name}[{at}] stands for {told}")
