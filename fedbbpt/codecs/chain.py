"""A chain of codecs: rotations, if wanted, and then one format of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fedbbpt.codecs.rotation import Rotation
from fedbbpt.codecs.tensors import numbers, numeric
from fedbbpt.types import Array, Arrays, Forms


class Format(Protocol):
    """The last link of a chain, which writes numbers in fewer bytes."""

    @property
    def name(self) -> str:
        """The format's name in a job."""
        ...

    @property
    def additive(self) -> bool:
        """Whether the sum of encoded arrays decodes to the sum of the arrays."""
        ...

    def encode(self, array: npt.NDArray[np.float64], where: str, rng: np.random.Generator) -> Array:
        """Returns the array as it travels. Raises InvalidTensor if a number is too large."""
        ...

    def form(self, shape: tuple[int, ...]) -> tuple[np.dtype[Any], tuple[int, ...]]:
        """Returns the type and the shape that an array of that shape is encoded to."""
        ...

    def decode(self, encoded: Array, shape: tuple[int, ...], where: str) -> npt.NDArray[np.float64]:
        """Returns the array of that shape. Raises InvalidTensor."""
        ...


@dataclass(frozen=True, slots=True)
class Chain:
    """An `interfaces.Codec` of a format, and of rotations before it."""

    rotations: Sequence[Rotation]
    format: Format

    @property
    def name(self) -> str:
        """The names of the links in order, joined by "+"."""
        return "+".join([*(rotation.name for rotation in self.rotations), self.format.name])

    @property
    def additive(self) -> bool:
        """Whether encoded updates can be summed. A rotation does not change that: it is linear."""
        return self.format.additive

    def encode(self, arrays: Arrays, rng: np.random.Generator) -> Arrays:
        return {name: self._encoded(array, name, rng) if numeric(array) else array for name, array in arrays.items()}

    def _encoded(self, array: Array, where: str, rng: np.random.Generator) -> Array:
        plain = numbers(array, where)
        for rotation in self.rotations:
            plain = rotation.forward(plain, where)
        return self.format.encode(plain, where, rng)

    def forms(self, shapes: Mapping[str, tuple[int, ...]]) -> Forms:
        return {name: self.format.form(self._between(shape)[-1]) for name, shape in shapes.items()}

    def _between(self, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Returns the shapes of an array before and after each rotation."""
        found = [shape]
        for rotation in self.rotations:
            found.append(rotation.shape(found[-1]))
        return found

    def decode(self, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
        return {name: self._decoded(array, shapes, name) if numeric(array) else array for name, array in arrays.items()}

    def _decoded(self, encoded: Array, shapes: Mapping[str, tuple[int, ...]], where: str) -> Array:
        between = self._between(shapes[where])
        plain = self.format.decode(encoded, between[-1], where)
        for rotation, shape in zip(reversed(self.rotations), reversed(between[:-1]), strict=True):
            plain = rotation.backward(plain, shape, where)
        return plain
