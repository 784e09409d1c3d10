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

With `uplink = "scalars"` a client sends the coefficients of SPSA's steps in place of theta^k: their directions follow
from seeds, so that the server finds the same theta^k, bit for bit (`walk`).

Above 300 lines, because the config, the settings and both halves of one paper share a file.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput, InvalidJob
from fedbbpt.interfaces import Objectives, Optimizer, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.methods.update_rules import LOSS, UpdateRules, Weight
from fedbbpt.optim.adamw import AdamWState
from fedbbpt.optim.losses import finite
from fedbbpt.optim.policy_gradient import PolicyGradient, ScoreFunction
from fedbbpt.optim.simplex import project
from fedbbpt.optim.spsa import SpsaGc, SpsaState
from fedbbpt.prompts.generator import Generator
from fedbbpt.prompts.text import TextSpace
from fedbbpt.toml.section import contradiction
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
    uplink: Literal["theta", "scalars"] = Field(
        "theta",
        description="Contents of an update: theta, or for soft and visual the few numbers from which the server finds "
        "it too.",
    )
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

    @model_validator(mode="after")
    def _scalars_are_those_of_spsa(self) -> "FedBbptConfig":
        if self.uplink == "scalars" and self.generator == "categorical":
            what = "the steps of a categorical generator are not along seeded directions"
            raise contradiction("uplink", what, '"theta", or another generator')
        return self


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
    scalars_sent: bool
    """Whether an update holds `coefficients`, instead of `theta`."""


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
    round: int
    """Number of steps that the server has made."""


def walk(
    tunable: SpsaTunable,
    settings: FedBbptSettings,
    arrays: Arrays,
    seed: int,
    client_id: str,
    coefficients: Callable[[int, Population], npt.NDArray[np.float64]],
) -> Theta:
    """Makes a client's steps from a broadcast, the same in both halves, and returns the theta `[s]` that they reach.

    SPSA uses nothing of the losses but one coefficient for each pair of candidates, whose directions follow from the
    seed, so the server can repeat the steps from the coefficients that a client sends.

    Args:
        tunable: The generator, and the search over its parameters.
        settings: The settings of the run.
        arrays: The broadcast.
        seed: The seed of the round's tasks.
        client_id: The client that makes or made the steps.
        coefficients: Returns the coefficients `[estimates]` of a step, counted from 0, with its population. The client
            queries its objective; the server reads the update.
    """
    theta, round = arrays["theta"].astype(np.float64), int(arrays["round"][0])
    state = tunable.begin(theta, round * settings.local_steps + 1)
    for j in range(settings.local_steps):
        population = tunable.search.ask(state, seeds.derive(seed, client_id, j))
        state = tunable.search.follow(state, population, coefficients(j, population))
    return state.point


class FedBbptServer:
    """Averages the clients' parameters, weighted by their numbers of examples."""

    def __init__(self, config: FedBbptConfig, space: PromptSpace) -> None:
        self._settings = settings(config)
        self._tunable = tunable(self._settings, space)
        self.linear = not self._settings.scalars_sent

    def init(self, seed: int) -> FedBbptState:
        return FedBbptState(self._tunable.init(), round=0)

    def started(self, state: FedBbptState, z: npt.NDArray[np.float32]) -> FedBbptState:
        """Returns the state at z, which only the visual generator has as its parameters. Raises InvalidInput."""
        if self._settings.generator != "visual":
            what = f"the {self._settings.generator} generator cannot begin at a given prompt"
            raise InvalidInput(what, where="start", fix="another method")
        return FedBbptState(z.astype(np.float64), round=0)

    def broadcast(self, state: FedBbptState, seed: int) -> Arrays:
        arrays: Arrays = {"theta": state.theta.astype(np.float32)}
        return {**arrays, "round": np.array([state.round], np.int32)} if self._settings.scalars_sent else arrays

    def step(self, state: FedBbptState, updates: Sequence[Update], seed: int) -> tuple[FedBbptState, Metrics]:
        """Averages theta. `train_loss` is the mean loss of all candidates that the clients queried."""
        arrays = self.broadcast(state, seed)
        total = merge([self._found(arrays, update, seed) for update in updates])
        train_loss = float(total.arrays["loss"][0] / total.weight)
        theta = self._tunable.feasible(total.arrays["theta"] / total.weight)  # sum_k (n_k / n) theta^k
        return FedBbptState(theta, state.round + 1), {"train_loss": train_loss}

    def _found(self, arrays: Arrays, update: Update, seed: int) -> Update:
        """Returns the update with theta in place of the coefficients."""
        if "theta" in update.arrays:
            return update
        assert isinstance(self._tunable, SpsaTunable), "the config refuses scalars of other generators"
        told = update.arrays["coefficients"] / update.weight
        theta = walk(self._tunable, self._settings, arrays, seed, update.client_id, lambda step, population: told[step])
        return replace(update, arrays={"theta": update.weight * theta, "loss": update.arrays["loss"]})

    def displaced(self, update: Update, before: FedBbptState, after: FedBbptState, seed: int) -> Update:
        """Moves theta by the difference of the broadcast thetas."""
        start, end = self.broadcast(before, seed), self.broadcast(after, seed)
        found, way = self._found(start, update, seed), end["theta"].astype(np.float64) - start["theta"]
        return replace(found, arrays={**found.arrays, "theta": found.arrays["theta"] + found.weight * way})

    def prompt(self, state: FedBbptState) -> npt.NDArray[np.float32]:
        return _prompt(self._tunable, self.broadcast(state, seed=0))

    def expected(self, state: FedBbptState) -> Mapping[str, tuple[int, ...]]:
        if self._settings.scalars_sent:
            return {"coefficients": (self._settings.local_steps, self._settings.estimates), "loss": (1,)}
        return _sums(self._tunable)

    def restore(self, arrays: Arrays) -> FedBbptState:
        return unpack(FedBbptState, arrays)


class FedBbptClient:
    """Makes `local_steps` steps of the search against the local loss."""

    def __init__(self, settings: FedBbptSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings = settings
        self._objectives = objectives
        self._tunable = tunable(settings, space)

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        if self._settings.scalars_sent:
            return self._scalars(task), {}
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

    def _scalars(self, task: Task) -> Update:
        assert isinstance(self._tunable, SpsaTunable), "the config refuses scalars of other generators"
        search, weight = self._tunable.search, self._objectives.weight
        sent, queried = [], []

        def coefficients(step: int, population: Population) -> npt.NDArray[np.float64]:
            draw = seeds.derive(task.seed, task.id.client_id, step)
            losses = self._objectives.loss(self._tunable.candidates(population), draw)
            queried.append(finite(losses).mean())
            # What the server divides by the weight is a float32, so both ends make the same step, bit for bit.
            sent.append((weight * search.coefficients(losses)).astype(np.float32).astype(np.float64))
            return np.asarray(sent[-1] / weight)

        walk(self._tunable, self._settings, task.arrays, task.seed, task.id.client_id, coefficients)
        return Update({"coefficients": np.stack(sent), "loss": np.array([weight * np.mean(queried)])}, weight)

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return _prompt(self._tunable, arrays)


def _prompt(tunable: Tunable, arrays: Arrays) -> npt.NDArray[np.float32]:
    """Returns the z `[n]` of a broadcast, the same in both halves."""
    return tunable.prompt(arrays["theta"].astype(np.float64))


def settings(config: FedBbptConfig) -> FedBbptSettings:
    """Returns the settings that clients receive: all keys of its own."""
    names = set(FedBbptSettings.__dataclass_fields__)
    return FedBbptSettings(**config.model_dump(include=names), scalars_sent=config.uplink == "scalars")


def _sums(tunable: Tunable) -> Mapping[str, tuple[int, ...]]:
    return {"theta": tunable.init().shape, "loss": (1,)}


def sums(settings: FedBbptSettings, space: PromptSpace) -> Mapping[str, tuple[int, ...]] | None:
    """Returns the shapes of the arrays of an update; None for coefficients, whose directions differ between clients."""
    return None if settings.scalars_sent else _sums(tunable(settings, space))


METHOD = Method(
    name="fed-bbpt",
    config=FedBbptConfig,
    settings_type=FedBbptSettings,
    settings=settings,
    server=FedBbptServer,
    client=FedBbptClient,
    spaces=lambda config: frozenset({SPACES[config.generator]}),
    sums=sums,
    rules=lambda settings: UpdateRules(Weight.EXAMPLES, {"loss": LOSS}),
    # Decoded probabilities would not add up to 1.
    undefended=lambda config, rule: (
        "clients send coefficients of directions of their own, which cannot be compared"
        if config.uplink == "scalars"
        else ""
    ),
    point=lambda settings: "" if settings.generator == "categorical" else "theta",
    stale=lambda config: "",
    downlink="int8",
)
