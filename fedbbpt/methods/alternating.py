"""Any search for a prompt, in turn with the fit of a readout.

A prompt adds to a readout, and a readout fits one prompt only. So the rounds of a run are

1. the fit of a readout that uses the views only, for which no prompt is scored,
2. the fit of a readout that uses the prompt as well, here the one with which the search begins,
3. `every` rounds of the search, whose losses are those through the readout, which stays the same,

and then 2 and 3 again and again. A fit takes at most `rounds` rounds, and fewer if it converges. It begins with the
readout before it, so that only what the prompt has changed has to be learned, and it costs one query for each example.
Every round is measured on dev examples, those of the first fit among them, so the run's result is never worse there
than the readout alone.

The halves here wrap the two halves of a search, which see a space of prompts without a readout.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidPlugin
from fedbbpt.interfaces import ClientHalf, Objectives, PromptSpace, ServerHalf
from fedbbpt.methods import readout_rounds, starting
from fedbbpt.methods.method import ReadoutConfig
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.readout_fit import ReadoutFit
from fedbbpt.types import (
    Arrays,
    Expansion,
    Losses,
    Metrics,
    Orders,
    Perturbation,
    Population,
    ReadoutSums,
    Task,
    Update,
    unpack,
)

OWN = frozenset({"readout", "readouts", "turn", "whole"})
"""The names of arrays in a broadcast that a search cannot use."""


def alternating_space(space: PromptSpace) -> ReadoutSpace | None:
    """Returns the space if a run in it searches for a prompt and fits a readout; otherwise None."""
    return space if isinstance(space, ReadoutSpace) and not isinstance(space.prompt, NoPrompt) else None


@dataclass(frozen=True, slots=True)
class AlternatingState:
    """The server's state between two rounds."""

    fitting: bool
    """Whether the next round is one of a fit."""
    since: int
    """The number of rounds of this fit, or of this search, so far."""
    turn: int
    """The number of rounds of all searches so far."""
    fit: ReadoutFit
    """The present fit, or the last one."""
    search: Any
    """The state of the search."""


class AlternatingServer:
    """The server's half: that of the search in some rounds, and fits of the readout in others."""

    def __init__(self, search: ServerHalf[Any], config: ReadoutConfig, space: ReadoutSpace) -> None:
        """
        Args:
            search: The server's half of a method, made for `space.prompt`.
            config: The lengths of fits and searches.
            space: The space of prompts with a readout.

        Raises:
            InvalidPlugin: The method uses names of arrays that belong to the fits.
        """
        self._search, self._config, self._space = search, config, space
        self.linear = search.linear
        taken = sorted(OWN & search.broadcast(search.init(0), 0).keys())
        if taken:
            what = f"a broadcast holds {', '.join(taken)}, which runs with a readout use themselves"
            raise InvalidPlugin(what, where=type(search).__name__, fix="other names of the arrays")

    def init(self, seed: int) -> AlternatingState:
        fit = readout_rounds.start(self._config, self._space)
        return AlternatingState(fitting=True, since=0, turn=0, fit=fit, search=self._search.init(seed))

    def started(self, state: AlternatingState, z: npt.NDArray[np.float32]) -> AlternatingState:
        """Returns the state whose search begins at the prompt of z. Its readout is fitted anew, from zeros."""
        search = starting.started(self._search, type(self._search).__name__, state.search, z[: self._space.prompt.dim])
        return replace(state, search=search)

    def broadcast(self, state: AlternatingState, seed: int) -> Arrays:
        if state.fitting:
            return readout_rounds.broadcast(state.fit, self._space, self._search.prompt(state.search))
        own = {"readout": self._readout(state), "turn": np.array([state.turn], np.float32)}
        return {**self._search.broadcast(state.search, seed), **own}

    def step(self, state: AlternatingState, updates: Sequence[Update], seed: int) -> tuple[AlternatingState, Metrics]:
        since = state.since + 1
        if state.fitting:
            fit, metrics = readout_rounds.step(state.fit, updates)
            done = since == self._config.rounds or readout_rounds.converged(fit)
            if done and self._of_views(fit):
                return self._new_fit(replace(state, fit=fit)), metrics
            return replace(state, fit=fit, fitting=not done, since=0 if done else since), metrics
        search, metrics = self._search.step(state.search, updates, seed)
        state = replace(state, search=search, since=since, turn=state.turn + 1)
        return self._new_fit(state) if since == self._config.every else state, metrics

    def _new_fit(self, state: AlternatingState) -> AlternatingState:
        return replace(state, fitting=True, since=0, fit=readout_rounds.continued(state.fit, self._space))

    def _of_views(self, fit: ReadoutFit) -> bool:
        return len(fit.mean) < self._space.width

    def _readout(self, state: AlternatingState) -> npt.NDArray[np.float32]:
        return readout_rounds.best(state.fit, self._space).astype(np.float32)

    def prompt(self, state: AlternatingState) -> npt.NDArray[np.float32]:
        return self._space.join(self._search.prompt(state.search), self._readout(state))

    def expected(self, state: AlternatingState) -> Mapping[str, tuple[int, ...] | Orders]:
        return readout_rounds.expected(state.fit) if state.fitting else self._search.expected(state.search)

    def restore(self, arrays: Arrays) -> AlternatingState:
        return AlternatingState(
            fitting=bool(arrays["fitting"]),
            since=int(arrays["since"]),
            turn=int(arrays["turn"]),
            fit=unpack(ReadoutFit, _of("fit.", arrays)),
            search=self._search.restore(_of("search.", arrays)),
        )


class AlternatingClient:
    """The client's half: that of the search in some rounds, and an evaluation of readouts in others."""

    def __init__(self, search: Callable[[Objectives], ClientHalf], space: ReadoutSpace, objectives: Objectives) -> None:
        """
        Args:
            search: Makes the client's half of a method, for `space.prompt`, on the objectives that it is given.
            space: The space of prompts with a readout.
            objectives: The client's losses in `space`.
        """
        self._search, self._space, self._objectives = search, space, objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        if readout_rounds.fits(task.arrays):
            return readout_rounds.update(self._objectives, task.arrays, self._space), private
        # Searches whose gains decay count their own rounds only.
        own = replace(task.id, round=int(task.arrays["turn"][0]))
        return self._half(task.arrays).update(replace(task, id=own, arrays=_of_search(task.arrays)), private)

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        if readout_rounds.fits(arrays):
            return arrays["mean"].astype(np.float32)
        return self._space.join(self._half(arrays).prompt(_of_search(arrays)), arrays["readout"])

    def _half(self, arrays: Arrays) -> ClientHalf:
        return self._search(ThroughReadout(self._objectives, self._space, arrays["readout"]))


class ThroughReadout:
    """Implements `interfaces.Objectives` for prompts without a readout: all of them are scored through the same one."""

    def __init__(self, objectives: Objectives, space: ReadoutSpace, readout: npt.NDArray[np.floating]) -> None:
        """
        Args:
            objectives: The losses in `space`.
            space: The space of prompts with a readout.
            readout: The readout of all prompts, `[K, C + 1]`.
        """
        self._objectives, self._space, self._readout = objectives, space, readout

    @property
    def weight(self) -> float:
        """n_k, the number of local training examples."""
        return self._objectives.weight

    def loss(self, population: Population, draw: int) -> Losses:
        """Returns the losses of prompts `[P, n]`, as `Objectives.loss` does."""
        return self._objectives.loss(self._joined(population), draw)

    def each(self, population: Population, perturbation: Perturbation | None, draw: int) -> npt.NDArray[np.float64]:
        """Returns the losses of prompts `[P, n]` on each example, as `Objectives.each` does."""
        return self._objectives.each(self._joined(population), perturbation, draw)

    def expansion(self, population: Population, draw: int) -> Expansion:
        """Returns the expansion at prompts `[1 + P, n]`; the class scores are affine in the columns' scores."""
        return self._objectives.expansion(self._joined(population), draw)

    def readout(
        self, z: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating], *, whole: bool = False
    ) -> ReadoutSums:
        """Returns the sums of readouts, as `Objectives.readout` does."""
        return self._objectives.readout(z, readouts, whole=whole)

    def _joined(self, population: Population) -> Population:
        same = np.broadcast_to(self._readout.ravel(), (len(population), self._readout.size))
        return np.concatenate([population, same], axis=1)


def _of_search(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name not in OWN}


def _of(prefix: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
