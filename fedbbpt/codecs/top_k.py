"""Top-k sparsification: only the largest numbers of a point travel, and the rest is made up for in later rounds.

What a codec loses of a difference is kept and added to the next one (error feedback, arXiv 1809.07599), so that every
number arrives in the end. This suits a point that updates move a little in each round, and nothing else.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.codecs.chain import Format
from fedbbpt.codecs.tensors import Bytes, numbers, numeric, shaped, typed
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Codec
from fedbbpt.types import Array, Arrays, Forms

LINK = "topk"


@dataclass(frozen=True, slots=True)
class TopK:
    """An `interfaces.Codec` that encodes the k = ceil(share n) numbers of the point with the largest absolute values.

    The bytes are n bits, of which k are 1, the first in the lowest bit of a byte, and then those numbers in order as
    `format` encodes them. The error of a number that travels is the format's, and that of the others is the number
    itself, so the squared error is at most (1 - share) of the squared length and the format's. All other arrays travel
    as `format` encodes them.
    """

    share: float
    """The share of the point's numbers that travel, above 0 and at most 1."""
    format: Format
    point: str
    """The name of the array that the share is taken of."""
    additive: bool = False
    """False, because each client chooses other numbers."""

    @property
    def name(self) -> str:
        """The codec's name in a job."""
        return f"{LINK}+{self.format.name}"

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        return {name: self._encoded(array, name, rng) if numeric(array) else array for name, array in arrays.items()}

    def _encoded(self, array: Array, where: str, rng: np.random.Generator) -> Array:
        plain = numbers(array, where)
        if where != self.point:
            return self.format.encode(plain, where, rng)
        flat, count = plain.ravel(), self._count(plain.size)
        chosen = np.zeros(flat.size, bool)
        chosen[np.argsort(-np.abs(flat), kind="stable")[:count]] = True
        mask = np.packbits(chosen, bitorder="little").view(np.int8)
        return np.concatenate([mask, _bytes(self.format.encode(flat[chosen], where, rng))])

    def forms(self, shapes: Mapping[str, tuple[int, ...]]) -> Forms:
        return {name: self._form(name, shape) for name, shape in shapes.items()}

    def _form(self, name: str, shape: tuple[int, ...]) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
        if name != self.point:
            return self.format.form(shape)
        number = math.prod(shape)
        dtype, inner = self.format.form((self._count(number),))
        return np.dtype(np.int8), (_mask_bytes(number) + math.prod(inner) * dtype.itemsize,)

    def decode(self, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        return {
            name: self._decoded(array, shapes[name], name) if numeric(array) else array
            for name, array in arrays.items()
        }

    def _decoded(self, encoded: Array, shape: tuple[int, ...], where: str) -> Array:
        if where != self.point:
            return self.format.decode(encoded, shape, where)
        number, count = math.prod(shape), self._count(math.prod(shape))
        data = typed(shaped(encoded, self._form(where, shape)[1], where), "int8", where)
        bits = np.unpackbits(data[: _mask_bytes(number)].view(np.uint8), bitorder="little")
        if bits.sum() != count or bits[number:].any():
            raise InvalidTensor(f"{bits.sum()} numbers are marked", where=where, fix=f"{count} of the first {number}")
        dtype, inner = self.format.form((count,))
        values = np.frombuffer(data[_mask_bytes(number) :].tobytes(), dtype.newbyteorder("<")).reshape(inner)
        flat = np.zeros(number)
        flat[bits[:number].astype(bool)] = self.format.decode(values.astype(dtype), (count,), where)
        return flat.reshape(shape)

    def _count(self, number: int) -> int:
        return min(number, math.ceil(self.share * number))


def _mask_bytes(number: int) -> int:
    return -(-number // 8)


def _bytes(array: Array) -> Bytes:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.int8)


def encoded_with_feedback(
    codec: Codec, arrays: Arrays, lost: Arrays, scale: float, rng: np.random.Generator
) -> tuple[Arrays, Arrays]:
    """Returns the encoded arrays of an update, and what the codec lost of its point; nothing if the codec is no TopK.

    Args:
        codec: The codec of the run.
        arrays: The arrays in the form in which they travel.
        lost: What the codec lost of the client's last update, as this function returned it; empty at first.
        scale: The number that a point is multiplied by in `arrays`, so that `lost` does not depend on it.
        rng: Rounds stochastically.
    """
    if not isinstance(codec, TopK) or codec.point not in arrays:
        return codec.encode(arrays, rng), {}
    point = codec.point
    before: npt.NDArray[np.float64] | float = scale * lost[point] if point in lost else 0.0
    wanted = arrays[point] + before
    encoded = codec.encode({**arrays, point: wanted}, rng)
    arrived = codec.decode({point: encoded[point]}, {point: wanted.shape})[point]
    return encoded, {point: (wanted - arrived) / scale}
