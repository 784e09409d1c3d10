"""fed-bbpt (Fed-BBPT, arXiv 2310.03123): the parameters theta of a prompt generator are federated.

Each round every client makes `local_steps` steps on theta against its own loss, one PTM call a step, and sends theta^k;
the server averages: theta = sum_k (n_k / n) theta^k. What generates the prompt, and which zeroth-order search makes a
step, is the choice of `generator`:

- soft: a small net gives z; SPSA with gradient correction on its weights.
- categorical (BDPL, arXiv 2201.08531): a distribution over candidates for each word of the prompt; a variance-reduced
  policy gradient. Text in and scores out. One client in a round is FedOne (arXiv 2506.14929).
- visual (BlackVIP, arXiv 2303.14773): the weights of a decoder that draws on images; SPSA with gradient correction on
  them. Published gains: a = 0.01, alpha = 0.4, o = 1, c = 0.005 to 0.02, gamma = 0.1 to 0.2, beta = 0.9, 5 estimates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

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
    """`[method]` of a job. Gains: a_i = a / (i + o)^alpha and c_i = c / i^gamma, with i counted over the whole run."""

    name: Literal["fed-bbpt"] = "fed-bbpt"
    generator: Literal["soft", "categorical", "visual"] = Field(
        "soft",
        description="soft: a small net; categorical: a distribution over words, for prompts of text; visual: the net "
        "that draws an image prompt.",
    )
    local_steps: int = Field(5, ge=1, description="Steps of a client in a round.")
    estimates: int = Field(5, ge=1, description="Two-sided gradient estimates averaged in a step: two queries each.")
    a: float = Field(0.3, gt=0, allow_inf_nan=False, description="Gain of the step.")
    alpha: float = Field(0.4, ge=0, le=1, description="Decay of the step's gain.")
    o: float = Field(1.0, ge=0, allow_inf_nan=False, description="Offset of the step's gain.")
    c: float = Field(0.1, gt=0, allow_inf_nan=False, description="Width of the perturbation.")
    gamma: float = Field(0.1, ge=0, le=1, description="Decay of the perturbation's width.")
    beta: float = Field(0.9, ge=0, lt=1, description="Momentum of the gradient correction.")
    code: int = Field(8, ge=1, description="Length of the generator's latent code.")
    hidden: int = Field(16, ge=1, description="Width of the generator's hidden layer.")
    generator_seed: int = Field(0, ge=0, lt=2**64, description="Fixes the latent code and the first weights.")
    samples: int = Field(20, ge=2, le=1024, description="categorical: prompts drawn in a step, one query each.")
    learning_rate: float = Field(1e-4, gt=0, le=1, description="categorical: of AdamW.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="categorical: of AdamW.")
    clip_norm: float = Field(3.0, gt=0, allow_inf_nan=False, description="categorical: the longest gradient.")
    score_function: ScoreFunction = Field("true", description="categorical: true, or signed as in BDPL's code.")


@dataclass(frozen=True, slots=True)
class FedBbptSettings(MethodSettings):
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


class Tuned(Protocol):
    """A generator, and the search over its parameters theta."""

    space: ClassVar[str]
    """The kind of prompts that it makes."""

    @property
    def search(self) -> Optimizer[Any]: ...

    def init(self) -> Theta:
        """The first theta."""
        ...

    def begin(self, theta: Theta, step: int) -> Any:
        """The search's state from theta on; `step` is that of the whole run, from 1."""
        ...

    def candidates(self, population: Population) -> Population:
        """The z `[P, n]` that a population of the search stands for."""
        ...

    def feasible(self, theta: Theta) -> Theta:
        """The nearest theta that is one: codecs round."""
        ...

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        """The z `[n]` of a theta: what is deployed."""
        ...


class Visual:
    """theta `[s]` is z itself, since the space holds the generator: what z is added to are a decoder's weights."""

    space: ClassVar[str] = "image"

    def __init__(self, settings: FedBbptSettings, space: PromptSpace) -> None:
        s = settings
        self._dim = space.dim
        self.search = SpsaGc(s.estimates, s.a, s.alpha, s.o, s.c, s.gamma, s.beta)

    def init(self) -> Theta:
        return np.zeros(self._dim)

    def begin(self, theta: Theta, step: int) -> SpsaState:
        return replace(self.search.init(theta), step=step)

    def candidates(self, population: Population) -> Population:
        return population

    def feasible(self, theta: Theta) -> Theta:
        return theta

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        return theta.astype(np.float32)


class Soft(Visual):
    """theta `[s]` is the weights of a net that makes z, and the search is over them in the same way."""

    space: ClassVar[str] = "latent"

    def __init__(self, settings: FedBbptSettings, space: PromptSpace) -> None:
        super().__init__(settings, space)
        self._generator = Generator(space.dim, settings.code, settings.hidden, settings.generator_seed)

    def init(self) -> Theta:
        return self._generator.init()

    def candidates(self, population: Population) -> Population:
        return self._generator(population)

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        return super().prompt(self._generator(theta[None])[0])


class Categorical:
    """theta `[n, N]` is the probability of each candidate at each place, and the search is over prompts drawn by it."""

    space: ClassVar[str] = "text"

    def __init__(self, settings: FedBbptSettings, space: PromptSpace) -> None:
        if not isinstance(space, TextSpace):
            raise InvalidJob("a categorical generator makes words", where="task.prompt", fix='kind = "text"')
        s = settings
        self._shape = space.dim, len(space.candidates)
        self.search = PolicyGradient(s.samples, s.learning_rate, s.weight_decay, s.clip_norm, s.score_function)

    def init(self) -> Theta:
        return np.full(self._shape, 1 / self._shape[1])

    def begin(self, theta: Theta, step: int) -> AdamWState:
        return self.search.init(theta)

    def candidates(self, population: Population) -> Population:
        return population

    def feasible(self, theta: Theta) -> Theta:
        return project(theta)

    def prompt(self, theta: Theta) -> npt.NDArray[np.float32]:
        z: npt.NDArray[np.float32] = theta.argmax(axis=1).astype(np.float32)
        return z


GENERATORS: Mapping[str, type[Soft] | type[Categorical] | type[Visual]] = {
    "soft": Soft,
    "categorical": Categorical,
    "visual": Visual,
}


def tuned(settings: FedBbptSettings, space: PromptSpace) -> Tuned:
    return GENERATORS[settings.generator](settings, space)


@dataclass(frozen=True, slots=True)
class FedBbptState:
    theta: Theta


class FedBbptServer:
    linear = True

    def __init__(self, config: FedBbptConfig, space: PromptSpace) -> None:
        self._tuned = tuned(settings(config), space)

    def init(self, seed: int) -> FedBbptState:
        return FedBbptState(self._tuned.init())

    def broadcast(self, state: FedBbptState, seed: int) -> Arrays:
        return {"theta": state.theta.astype(np.float32)}

    def step(self, state: FedBbptState, updates: Sequence[Update], seed: int) -> tuple[FedBbptState, Metrics]:
        """`train_loss` is the mean loss of all that the clients probed."""
        total = merge(updates)
        train_loss = float(total.arrays["loss"][0] / total.weight)
        theta = self._tuned.feasible(total.arrays["theta"] / total.weight)
        return FedBbptState(theta), {"train_loss": train_loss}

    def prompt(self, state: FedBbptState) -> npt.NDArray[np.float32]:
        return prompt(self._tuned, self.broadcast(state, seed=0))

    def expected(self) -> Mapping[str, tuple[int, ...]]:
        return {"theta": self._tuned.init().shape, "loss": (1,)}

    def restore(self, arrays: Arrays) -> FedBbptState:
        return unpack(FedBbptState, arrays)


class FedBbptClient:
    def __init__(self, settings: FedBbptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives
        self._tuned = tuned(settings, space)

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        steps, search = self._settings.local_steps, self._tuned.search
        # Gains go on from round to round. Momentum, and AdamW's means, begin anew: the point that they led to was
        # averaged away, and a client that was absent would bring old ones.
        state = self._tuned.begin(task.arrays["theta"].astype(np.float64), task.id.round * steps + 1)
        probed = []
        for j in range(steps):
            population = search.ask(state, seeds.derive(task.seed, task.id.client_id, j))
            losses = self._objectives.loss(self._tuned.candidates(population))
            state = search.tell(state, population, losses)
            probed.append(finite(losses).mean())
        weight = self._objectives.weight
        arrays = {"theta": weight * state.point, "loss": np.array([weight * np.mean(probed)])}
        return Update(arrays, weight, metrics={}), {}

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return prompt(self._tuned, arrays)


def prompt(tuned: Tuned, arrays: Arrays) -> npt.NDArray[np.float32]:
    """The z `[n]` of a broadcast."""
    return tuned.prompt(arrays["theta"].astype(np.float64))


def settings(config: FedBbptConfig) -> FedBbptSettings:
    return FedBbptSettings(**config.model_dump(exclude={"name"}))


def spaces(config: FedBbptConfig) -> frozenset[str]:
    return frozenset({GENERATORS[config.generator].space})


METHOD = Method("fed-bbpt", FedBbptConfig, FedBbptSettings, settings, FedBbptServer, FedBbptClient, spaces)
