"""Broadcasts as differences to the ones before, encoded by a codec, for methods whose clients search from a point.

The server moves its point to where a client gets by decoding, so that all compute from the same numbers, whether they
replay or get the broadcast whole. What the codec lost is kept and added to the next difference (error feedback, arXiv
1809.07599), so that errors do not add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import InvalidTensor
from fedbbpt.interfaces import Codec, ServerHalf
from fedbbpt.methods import stale_updates, starting
from fedbbpt.types import Array, Arrays, Metrics, Orders, Update, pack

STEP = "step"
"""The name of the encoded difference among the news."""


@dataclass(frozen=True, slots=True)
class CodedState:
    """A method's state, and what its last step is told as."""

    search: Any
    """The state of the method, whose point is what clients have decoded."""
    error: npt.NDArray[np.float64]
    """The difference between the point that the method reached and the one that clients have."""
    step: Array
    """The encoded difference of the last two points; empty if they had to be told whole."""


class CodedServer:
    """A method's half of the server with encoded broadcasts. Implements `interfaces.ServerHalf`."""

    def __init__(self, inner: ServerHalf[Any], point: str, codec: Codec) -> None:
        """`point` names a field of the method's state that its broadcast holds as float32 under the same name."""
        self._inner, self._point, self._codec = inner, point, codec
        self.linear = inner.linear

    def init(self, seed: int) -> CodedState:
        search = self._inner.init(seed)
        return CodedState(search, np.zeros(getattr(search, self._point).shape), np.zeros(0, np.int8))

    def started(self, state: CodedState, z: npt.NDArray[np.float32]) -> CodedState:
        search = starting.started(self._inner, type(self._inner).__name__, state.search, z)
        return replace(state, search=search)

    def broadcast(self, state: CodedState, seed: int) -> Arrays:
        return self._inner.broadcast(state.search, seed)

    def step(self, state: CodedState, updates: Sequence[Update], seed: int) -> tuple[CodedState, Metrics]:
        """Makes the method's step, and moves its point to what clients decode."""
        found, metrics = self._inner.step(state.search, updates, seed)
        before = self.broadcast(state, seed)[self._point]
        reached = getattr(found, self._point)
        wanted = reached.astype(np.float64) + state.error
        rng = seeds.rng(seed, "downlink")
        try:
            step = self._codec.encode({self._point: wanted - before}, rng)[self._point]
            told = moved(before, step, self._point, self._codec)
        except InvalidTensor:  # the difference is too large for the codec, or the search has failed
            step, told = np.zeros(0, np.int8), wanted.astype(np.float32)
        search = replace(found, **{self._point: told.astype(reached.dtype)})
        return CodedState(search, wanted - told, step), metrics

    def displaced(self, update: Update, before: CodedState, after: CodedState, seed: int) -> Update:
        return stale_updates.displaced(self._inner, update, before.search, after.search, seed)

    def prompt(self, state: CodedState) -> npt.NDArray[np.float32]:
        return self._inner.prompt(state.search)

    def expected(self, state: CodedState) -> Mapping[str, tuple[int, ...] | Orders]:
        return self._inner.expected(state.search)

    def restore(self, arrays: Arrays) -> CodedState:
        own = pack(CodedState(None, np.zeros(0), np.zeros(0))).keys() - {"search"}
        inner = {name.removeprefix("search."): array for name, array in arrays.items() if name not in own}
        return CodedState(self._inner.restore(inner), arrays["error"], arrays["step"])


class CodedReplay:
    """Replays a step by adding the decoded difference. The other arrays of a broadcast are news as they are."""

    def __init__(self, point: str, codec: Codec) -> None:
        self._point, self._codec = point, codec

    def held(self, state: CodedState, broadcast: Arrays) -> Arrays:
        return broadcast

    def broadcast(self, held: Arrays) -> Arrays:
        return held

    def news(self, after: CodedState, broadcast: Arrays, updates: Sequence[Update], seed: int) -> Arrays:
        return {**{name: array for name, array in broadcast.items() if name != self._point}, STEP: after.step}

    def draw_ahead(self, broadcast: Arrays, seed: int) -> None:
        pass  # a difference needs no draws

    def replayed(self, held: Arrays, news: Arrays, seed: int) -> Arrays:
        point = moved(held[self._point], news[STEP], self._point, self._codec)
        others = {name: array for name, array in news.items() if name != STEP}
        return {self._point: point, **others}


def moved(before: npt.NDArray[np.float32], step: Array, name: str, codec: Codec) -> npt.NDArray[np.float32]:
    """Returns the point after an encoded step. Raises InvalidTensor if it is not finite."""
    decoded = codec.decode({name: step}, {name: before.shape})[name]
    point: npt.NDArray[np.float32] = (before.astype(np.float64) + decoded).astype(np.float32)
    if not np.isfinite(point).all():
        raise InvalidTensor("NaN or infinite elements", where=name, fix="finite numbers")
    return point
