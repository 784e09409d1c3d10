"""fed-readout: a multinomial regression on the model's scores, fitted by all clients together, without a prompt.

Each client has the model score its examples once, B queries for each view, and keeps the scores. After that a round
costs no query: the server sends readouts, the clients return the loss and its gradient as sums over their examples, and
the server takes one step of L-BFGS. The sums are those of all examples in one place, so the result is that of a pooled
fit, whatever the label skew (tasks/readout_fit.py).

First the training examples are fitted with each of several ridges, of which the dev examples choose one. Then the
readout is fitted again with that ridge, to both: where labelled examples are few, the dev examples are a large part of
them. From then on the dev loss of a round is that of examples that the readout has learned from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt.errors import InvalidJob
from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods import readout_rounds
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.readout_fit import ReadoutFit, refitted
from fedbbpt.types import Arrays, MethodSettings, Metrics, Task, Update, unpack

NO_PROMPT = NoPrompt.Z[0]


class FedReadoutConfig(MethodConfig):
    """The table `[method]` of a job. The ridges are in its table `readout`."""

    name: Literal["fed-readout"] = "fed-readout"
    refit: bool = Field(
        True,
        description="Whether the readout is fitted again with the chosen ridge, to training and dev examples together. "
        "Dev figures are then those of examples that it has learned from.",
    )


@dataclass(frozen=True, slots=True)
class FedReadoutSettings(MethodSettings):
    """Clients need no settings: a broadcast says everything."""


@dataclass(frozen=True, slots=True)
class FedReadoutState:
    """The server's state between two rounds."""

    since: int
    """The number of rounds of this fit so far."""
    fit: ReadoutFit
    """The fits with all ridges, or the one after it with the chosen ridge."""


class FedReadoutServer:
    """Fits one readout for each ridge, and then perhaps one more with the best ridge to all examples."""

    linear = True

    def __init__(self, config: FedReadoutConfig, space: PromptSpace) -> None:
        self._config, self._space = config, _readout_space(space)

    def init(self, seed: int) -> FedReadoutState:
        return FedReadoutState(0, readout_rounds.start(self._config.readout, self._space))

    def broadcast(self, state: FedReadoutState, seed: int) -> Arrays:
        return readout_rounds.broadcast(state.fit, self._space, NO_PROMPT)

    def step(self, state: FedReadoutState, updates: Sequence[Update], seed: int) -> tuple[FedReadoutState, Metrics]:
        fit, metrics = readout_rounds.step(state.fit, updates)
        since = state.since + 1
        done = since == self._config.readout.rounds or readout_rounds.converged(fit)
        if done and self._config.refit and not fit.whole:
            return FedReadoutState(0, refitted(fit)), metrics
        return FedReadoutState(since, fit), metrics

    def prompt(self, state: FedReadoutState) -> npt.NDArray[np.float32]:
        return self._space.join(NO_PROMPT, readout_rounds.best(state.fit, self._space))

    def expected(self, state: FedReadoutState) -> Mapping[str, tuple[int, ...]]:
        return readout_rounds.expected(state.fit)

    def restore(self, arrays: Arrays) -> FedReadoutState:
        fit = {name.removeprefix("fit."): array for name, array in arrays.items() if name.startswith("fit.")}
        return FedReadoutState(int(arrays["since"]), unpack(ReadoutFit, fit))


class FedReadoutClient:
    """Evaluates the readouts on the local examples."""

    def __init__(self, settings: FedReadoutSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._space, self._objectives = _readout_space(space), objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        return readout_rounds.update(self._objectives, task.arrays, self._space), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)


def _readout_space(space: PromptSpace) -> ReadoutSpace:
    if not isinstance(space, ReadoutSpace):
        raise InvalidJob("fed-readout has nothing to fit", where="task.views", fix='views = [""], or further ones')
    return space


METHOD = Method(
    name="fed-readout",
    config=FedReadoutConfig,
    settings_type=FedReadoutSettings,
    settings=lambda config: FedReadoutSettings(),
    stale=lambda config: "its updates are sums over examples at one readout, and other rounds have other readouts",
    server=FedReadoutServer,
    client=FedReadoutClient,
    spaces=lambda config: frozenset({"none"}),
    needs_scores=lambda settings: True,
    undefended=lambda config, rule: "a readout is fitted to the sums over all clients, which must be exact",
    sums=lambda settings, space: {},
    essential=readout_rounds.essential,
)
