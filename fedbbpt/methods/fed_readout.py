"""fed-readout: a multinomial regression on the model's scores, fitted by all clients together, without a prompt.

Each client has the model score its examples once, B queries for each view, and keeps the scores. After that a round
costs no query: the server sends readouts, the clients return the loss and its gradient as sums over their examples, and
the server takes one step of L-BFGS. The sums are those of all examples in one place, so the result is that of a pooled
fit, whatever the label skew (tasks/readout_fit.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidJob
from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods import readout_rounds
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks.readout_fit import ReadoutFit
from fedbbpt.types import Arrays, MethodSettings, Metrics, Task, Update, unpack

NO_PROMPT = NoPrompt.Z[0]


class FedReadoutConfig(MethodConfig):
    """The table `[method]` of a job. The ridges are in its table `readout`."""

    name: Literal["fed-readout"] = "fed-readout"


@dataclass(frozen=True, slots=True)
class FedReadoutSettings(MethodSettings):
    """Clients need no settings: a broadcast says everything."""


class FedReadoutServer:
    """Fits one readout for each ridge."""

    linear = True

    def __init__(self, config: FedReadoutConfig, space: PromptSpace) -> None:
        self._config, self._space = config.readout, _readout_space(space)

    def init(self, seed: int) -> ReadoutFit:
        return readout_rounds.start(self._config, self._space)

    def broadcast(self, state: ReadoutFit, seed: int) -> Arrays:
        return readout_rounds.broadcast(state, self._space, NO_PROMPT)

    def step(self, state: ReadoutFit, updates: Sequence[Update], seed: int) -> tuple[ReadoutFit, Metrics]:
        return readout_rounds.step(state, updates)

    def prompt(self, state: ReadoutFit) -> npt.NDArray[np.float32]:
        return self._space.join(NO_PROMPT, readout_rounds.best(state, self._space))

    def expected(self, state: ReadoutFit) -> Mapping[str, tuple[int, ...]]:
        return readout_rounds.expected(state)

    def restore(self, arrays: Arrays) -> ReadoutFit:
        return unpack(ReadoutFit, arrays)


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
    server=FedReadoutServer,
    client=FedReadoutClient,
    spaces=lambda config: frozenset({"none"}),
    needs_scores=lambda settings: True,
)
