"""fed-bbpt (Fed-BBPT, arXiv 2310.03123): the federation averages the parameters theta of a prompt generator.

Each round, every client k makes `local_steps` steps on theta against its own loss, one PTM call for each step, and
sends theta^k. The server averages them:

    theta_{t+1} = sum_k (n_k / n) theta^k

`generator` chooses what makes the prompt from theta, and the zeroth-order search that makes a step:

- soft: a small network makes z. SPSA with gradient correction (SPSA-GC) searches its weights.
- categorical (BDPL, arXiv 2201.08531): a distribution over candidate words for each place in the prompt. A
  variance-reduced policy gradient searches it. Prompts are text. With one client in each round, this is FedOne
  (arXiv 2506.14929).
- visual (BlackVIP, arXiv 2303.14773): the weights of a decoder that draws on images. SPSA-GC searches them. BlackVIP
  uses a = 0.01, alpha = 0.4, o = 1, c = 0.005 to 0.02, gamma = 0.1 to 0.2, beta = 0.9 and 5 estimates.

Above 300 lines, because the config, the settings and both halves of one paper share a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field

from fedbbpt import seeds
from fedbbpt.errors import InvalidJob
from fedbbpt.interfaces import Objectives, Optimizer, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.optim.adamw import AdamWState
from fedbbpt.optim.losses import finite
from fedbbpt.optim.policy_gradient import PolicyGradient, ScoreFunction
from fedbbpt.optim.simplex import project
from fedbbpt.optim.spsa import SpsaGc, SpsaState
from fedbbpt.prompts.generator import Generator
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import Arrays, MethodSettings, Metrics, Population, Task, Update, merge, unpack

Theta: TypeAlias = npt.NDArray[np.float64]


class FedBbptConfig(MethodConfig):
    """The table `[method]` of a job.

    SPSA's gains in step i, counted over the whole run, are a_i = a / (i + o)^alpha and c_i = c / i^gamma.
    """

    name: Literal["fed-bbpt"] = "fed-bbpt"
    generator: Literal["soft", "categorical", "visual"] = Field(
        "soft",
        description="soft: a small network makes the prompt; categorical: a distribution over words, for text prompts; "
        "visual: a network that draws on images.",
    )
    local_steps: int = Field(5, ge=1, description="Steps that a client makes in a round.")
    estimates: int = Field(
        5, ge=1, description="Two-sided gradient estimates averaged in a step; each costs two queries per example."
    )
    a: float = Field(0.3, gt=0, allow_inf_nan=False, description="Step size.")
    alpha: float = Field(0.4, ge=0, le=1, description="Exponent with which the step size decays.")
    o: float = Field(1.0, ge=0, allow_inf_nan=False, description="Number of steps added before the step size decays.")
    c: float = Field(0.1, gt=0, allow_inf_nan=False, description="Size of the perturbation.")
    gamma: float = Field(0.1, ge=0, le=1, description="Exponent with which the perturbation decays.")
    beta: float = Field(0.9, ge=0, lt=1, description="Momentum of the gradient correction.")
    code: int = Field(8, ge=1, description="soft: length of the network's input.")
    hidden: int = Field(16, ge=1, description="soft: width of the network's hidden layer.")
    generator_seed: int = Field(0, ge=0, lt=2**64, description="soft: seed of the network's input and first weights.")
    samples: int = Field(
        20, ge=2, le=1024, description="categorical: prompts drawn in a step; each costs one query per example."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="categorical: learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="categorical: weight decay of AdamW.")
    clip_norm: float = Field(
        3.0, gt=0, allow_inf_nan=False, description="categorical: longer gradients are shortened to this norm."
    )
    score_function: ScoreFunction = Field(
        "true", description="categorical: true, or signed as in BDPL's reference code."
    )


@dataclass(frozen=True, slots=True)
class FedBbptSettings(MethodSettings):
    """The part of the config that clients need. Fields have the meanings of the config's keys."""

    generator: str
    local_steps: int
    estimates: int
    a: float
    alpha: float
    o: float
    c: float
    gamma: float
    beta: float
    code: int
    hidden: int
    generator_seed: int
    samples: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    score_function: ScoreFunction


class Tunable(Protocol):
    """A generator of prompts, and the search over its parameters theta."""

    @property
    def search(self) -> Optimizer[Any]:
        """The search over theta."""
        ...

    def init(self) -> Theta:
        """Returns the first theta."""
        ...

    def begin(self, theta: Theta, step: int) -> Any:
        """Returns the search's state at theta before `step`, counted from 1 over the whole run."""
        ...

    def candidates(self, population: Population) -> Population:
        """Returns the candidates z `[P, n]` of a population of the search."""
        ...

    def feasible(self, theta: Theta) -> Theta:
        """Returns the feasible theta nearest to an average of thetas, which codecs have rounded."""
        ...

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        """Returns the z `[n]` that is deployed."""
        ...


@dataclass(frozen=True, slots=True)
class SpsaTunable:
    """A generator whose parameters theta `[s]` are searched by SPSA-GC."""

    search: SpsaGc
    first: Theta
    generate: Callable[[Population], Population]
    """Makes z `[P, n]` from theta `[P, s]`."""

    def init(self) -> Theta:
        return self.first

    def begin(self, theta: Theta, step: int) -> SpsaState:
        return replace(self.search.init(theta), step=step)

    def candidates(self, population: Population) -> Population:
        return self.generate(population)

    def feasible(self, theta: Theta) -> Theta:
        return theta

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        z: npt.NDArray[np.float32] = self.generate(theta[None])[0].astype(np.float32)
        return z


@dataclass(frozen=True, slots=True)
class CategoricalTunable:
    """Probabilities theta `[n, N]` of each candidate word at each place, searched through prompts drawn from them."""

    search: PolicyGradient
    words: int
    """n, the number of places."""
    choices: int
    """N, the number of candidate words."""

    def init(self) -> Theta:
        return np.full((self.words, self.choices), 1 / self.choices)

    def begin(self, theta: Theta, step: int) -> AdamWState:
        return self.search.init(theta)

    def candidates(self, population: Population) -> Population:
        return population

    def feasible(self, theta: Theta) -> Theta:
        return project(theta)

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        most_likely: npt.NDArray[np.float32] = theta.argmax(axis=1).astype(np.float32)
        return most_likely


def soft(settings: FedBbptSettings, space: PromptSpace) -> SpsaTunable:
    """Returns the generator of latent prompts: theta holds the weights of a network that makes z."""
    network = Generator(space.dim, settings.code, settings.hidden, settings.generator_seed)
    return SpsaTunable(_spsa_gc(settings), network.init(), network)


def visual(settings: FedBbptSettings, space: PromptSpace) -> SpsaTunable:
    """Returns the generator of image prompts: theta is z itself, since the space holds the decoder it is added to."""
    return SpsaTunable(_spsa_gc(settings), np.zeros(space.dim), lambda population: population)


def categorical(settings: FedBbptSettings, space: PromptSpace) -> CategoricalTunable:
    """Returns the generator of text prompts. Raises InvalidJob if the space has no words."""
    if not isinstance(space, TextSpace):
        raise InvalidJob("a categorical generator makes text", where="task.prompt", fix='kind = "text"')
    s = settings
    search = PolicyGradient(s.samples, s.learning_rate, s.weight_decay, s.clip_norm, s.score_function)
    return CategoricalTunable(search, space.dim, len(space.candidates))


def _spsa_gc(settings: FedBbptSettings) -> SpsaGc:
    s = settings
    return SpsaGc(s.estimates, s.a, s.alpha, s.o, s.c, s.gamma, s.beta)


GENERATORS: Mapping[str, Callable[[FedBbptSettings, PromptSpace], Tunable]] = {
    "soft": soft,
    "categorical": categorical,
    "visual": visual,
}
SPACES = {"soft": "latent", "categorical": "text", "visual": "image"}
"""The kind of prompt that each generator makes."""


def tunable(settings: FedBbptSettings, space: PromptSpace) -> Tunable:
    """Returns the generator that the settings choose."""
    return GENERATORS[settings.generator](settings, space)


@dataclass(frozen=True, slots=True)
class FedBbptState:
    """The server's state between two rounds."""

    theta: Theta


class FedBbptServer:
    """Averages the clients' parameters, weighted by their numbers of examples."""

    linear = True

    def __init__(self, config: FedBbptConfig, space: PromptSpace) -> None:
        self._tunable = tunable(settings(config), space)

    def init(self, seed: int) -> FedBbptState:
        return FedBbptState(self._tunable.init())

    def broadcast(self, state: FedBbptState, seed: int) -> Arrays:
        return {"theta": state.theta.astype(np.float32)}

    def step(self, state: FedBbptState, updates: Sequence[Update], seed: int) -> tuple[FedBbptState, Metrics]:
        """Averages theta. `train_loss` is the mean loss of all candidates that the clients queried."""
        total = merge(updates)
        train_loss = float(total.arrays["loss"][0] / total.weight)
        theta = self._tunable.feasible(total.arrays["theta"] / total.weight)  # sum_k (n_k / n) theta^k
        return FedBbptState(theta), {"train_loss": train_loss}

    def prompt(self, state: FedBbptState) -> npt.NDArray[np.float32]:
        return _prompt(self._tunable, self.broadcast(state, seed=0))

    def expected(self, state: FedBbptState) -> Mapping[str, tuple[int, ...]]:
        return {"theta": self._tunable.init().shape, "loss": (1,)}

    def restore(self, arrays: Arrays) -> FedBbptState:
        return unpack(FedBbptState, arrays)


class FedBbptClient:
    """Makes `local_steps` steps of the search against the local loss."""

    def __init__(self, settings: FedBbptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives
        self._tunable = tunable(settings, space)

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        steps, search = self._settings.local_steps, self._tunable.search
        # The gains decay over the whole run, so the step number continues from round to round. Momentum and AdamW's
        # moments restart: the server has averaged away the point that they led to, and those of a client that missed
        # some rounds would be stale.
        state = self._tunable.begin(task.arrays["theta"].astype(np.float64), task.id.round * steps + 1)
        queried = []
        for j in range(steps):
            seed = seeds.derive(task.seed, task.id.client_id, j)
            population = search.ask(state, seed)
            losses = self._objectives.loss(self._tunable.candidates(population), draw=seed)
            state = search.tell(state, population, losses)
            queried.append(finite(losses).mean())
        weight = self._objectives.weight
        arrays = {"theta": weight * state.point, "loss": np.array([weight * np.mean(queried)])}
        return Update(arrays, weight), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return _prompt(self._tunable, arrays)


def _prompt(tunable: Tunable, arrays: Arrays) -> npt.NDArray[np.float32]:
    """Returns the z `[n]` of a broadcast, the same in both halves."""
    return tunable.prompt(arrays["theta"].astype(np.float64))


def settings(config: FedBbptConfig) -> FedBbptSettings:
    """Returns the settings that clients receive: all keys of its own."""
    return FedBbptSettings(**config.model_dump(include=set(FedBbptSettings.__dataclass_fields__)))


METHOD = Method(
    name="fed-bbpt",
    config=FedBbptConfig,
    settings_type=FedBbptSettings,
    settings=settings,
    server=FedBbptServer,
    client=FedBbptClient,
    spaces=lambda config: frozenset({SPACES[config.generator]}),
)
