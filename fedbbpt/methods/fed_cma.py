"""fed-cma: CMA-ES on the federation's global loss, so that label skew between clients does not matter.

Each round, the server asks its CMA-ES for one population. Every client k scores the same candidates on its own n_k
examples and returns its losses times n_k. Their sum is n times the global loss

    F(z) = sum_k (n_k / n) F^k(z),

which the server tells its CMA-ES. An update holds P numbers. A broadcast holds mean and scale, from which the clients
draw the candidates by the task's seed; where the covariance is full, it holds the candidates themselves.

Ranks use only one number of the B x K scores that each candidate costs. With `step = "newton"`
clients also score the mean, and send the gradient and the Hessian of their loss in the mixtures a of the candidates'
scores,

    F(a) = criterion(S_0 + sum_i a_i (S_i - S_0)),

and in the class offsets, which no candidate needs to search. They add up as losses do. The mixture with the best a
within a trust region is the next mean (optim/newton.py), and a ridge keeps it from overfitting the training examples.
One of the candidates is the centre of the region, and clients send by how much their loss fell from there to the mean.
So a step is judged by those who answer, on the same examples before and after it, and the clients that answer may
differ from round to round.

The server learns P numbers from a round, or chooses N for a Newton step, and the next broadcast follows from them and
from the search of the round before. So clients that hold that search replay the step (`methods.replay`).

Above 300 lines, because the config, the settings, both halves and the replays of one method share a file.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from fedbbpt import seeds
from fedbbpt.errors import InvalidUpdate
from fedbbpt.interfaces import Objectives, PromptSpace
from fedbbpt.methods.method import Method, MethodConfig
from fedbbpt.methods.update_rules import CHANGE, LOSS, UpdateRules, Weight
from fedbbpt.optim import newton
from fedbbpt.optim.cmaes import CmaEs, CmaState, sample
from fedbbpt.optim.losses import finite
from fedbbpt.optim.newton import Newton, NewtonState
from fedbbpt.toml.section import contradiction
from fedbbpt.types import Arrays, Expansion, MethodSettings, Metrics, Population, Task, Update, merge, pack, unpack


class FedCmaConfig(MethodConfig):
    """The table `[method]` of a job."""

    name: Literal["fed-cma"] = "fed-cma"
    population: int = Field(20, ge=4, le=1024, description="Candidates in a round.")
    sigma: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Initial step size. 0: 0.6 for Newton steps, 1 for steps by ranks."
    )
    covariance: Literal["full", "diagonal"] = Field(
        "diagonal", description="full also learns dependencies between dimensions, and broadcasts all candidates."
    )
    step: Literal["ranks", "newton"] = Field(
        "newton",
        description="newton uses the candidates' scores, and needs fewer queries; ranks needs only their losses.",
    )
    ridge: float = Field(1e-3, ge=0, allow_inf_nan=False, description="newton: ridge / 2 |z|^2 is added to the loss.")

    @model_validator(mode="after")
    def _newton_adapts_no_covariance(self) -> "FedCmaConfig":
        if self.step == "newton" and self.covariance == "full":
            raise contradiction("covariance", 'step = "newton" adapts no covariance', '"diagonal", or step = "ranks"')
        return self

    @property
    def first_sigma(self) -> float:
        """The initial step size of the search."""
        return self.sigma or (0.6 if self.step == "newton" else 1.0)


@dataclass(frozen=True, slots=True)
class FedCmaSettings(MethodSettings):
    """The part of the config that clients need."""

    population: int
    """P"""
    candidates_sent: bool
    """Whether a broadcast holds `candidates`, instead of `mean` and `scale` to draw them from."""
    expansion_sent: bool
    """Whether updates hold the expansion of the loss that a Newton step needs, instead of `losses`."""


def candidates(arrays: Arrays, seed: int, settings: FedCmaSettings) -> Population:
    """Returns a round's candidates `[P, n]`, the same in both halves: rounded to float32, as the PTM gets them."""
    if settings.candidates_sent:
        return arrays["candidates"].astype(np.float64)
    mean, scale = (arrays[name].astype(np.float32).tobytes() for name in ("mean", "scale"))
    return _drawn(mean, scale, seed, settings.population)


@lru_cache(maxsize=4)
def _drawn(mean: bytes, scale: bytes, seed: int, population: int) -> Population:
    """Returns candidates `[P, n]`, read-only. Kept, because all clients of a simulation ask for the same."""
    drawn = sample(np.frombuffer(mean, np.float32), np.frombuffer(scale, np.float32), seed, population)
    rounded = drawn.astype(np.float32).astype(np.float64)
    rounded.setflags(write=False)
    return rounded


def near(arrays: Arrays, seed: int, population: int, offsets: int) -> Population:
    """Returns a round's candidates `[P, n]` for a Newton step, the same in both halves."""
    scale = float(arrays["scale"][0])
    return newton.candidates(arrays["mean"], arrays["center"], scale, seed, population=population, offsets=offsets)


class FedCmaServer:
    """Runs one CMA-ES on the global loss."""

    linear = True

    def __init__(self, config: FedCmaConfig, space: PromptSpace) -> None:
        self._search = CmaEs(config.population, config.first_sigma, config.covariance)
        self._settings, self._space = settings(config), space

    def init(self, seed: int) -> CmaState:
        return self._search.init(np.zeros(self._space.dim))

    def started(self, state: CmaState, z: npt.NDArray[np.float32]) -> CmaState:
        return self._search.init(z.astype(np.float64))

    def broadcast(self, state: CmaState, seed: int) -> Arrays:
        if self._settings.candidates_sent:
            return {"mean": self.prompt(state), "candidates": self._search.ask(state, seed).astype(np.float32)}
        return {"mean": self.prompt(state), "scale": self._search.scale(state).astype(np.float32)}

    def step(self, state: CmaState, updates: Sequence[Update], seed: int) -> tuple[CmaState, Metrics]:
        """Returns the next state. `train_loss` is the mean loss of the population."""
        total = merge(updates)
        losses = total.arrays["losses"] / total.weight
        population = candidates(self.broadcast(state, seed), seed, self._settings)
        return self._search.tell(state, population, losses), {"train_loss": float(losses.mean())}

    def prompt(self, state: CmaState) -> npt.NDArray[np.float32]:
        return state.mean.astype(np.float32)

    def expected(self, state: CmaState) -> Mapping[str, tuple[int, ...]]:
        return sums(self._settings, self._space)

    def restore(self, arrays: Arrays) -> CmaState:
        return unpack(CmaState, arrays)


@dataclass(frozen=True, slots=True)
class FedNewtonState:
    """The server's state between two rounds, and where the moves of its model come from.

    They lead from the centre, around which the candidates of the seed `drawn` were, to these and to `before`, the
    first of them. `NewtonReplay` repeats them.
    """

    search: NewtonState
    before: npt.NDArray[np.float64]
    """`[n]`"""
    drawn: npt.NDArray[np.int64]
    """`[1]`, with the bits of an unsigned number."""
    scale: float
    """The standard deviation of the candidates."""


class FedNewtonServer:
    """Steps to the best mixture of the candidates' scores."""

    linear = True

    def __init__(self, config: FedCmaConfig, space: PromptSpace) -> None:
        self._search = Newton(config.population, config.first_sigma, config.ridge, space.offsets)
        self._settings, self._space = settings(config), space

    def init(self, seed: int) -> FedNewtonState:
        return self._at(np.zeros(self._space.dim))

    def started(self, state: FedNewtonState, z: npt.NDArray[np.float32]) -> FedNewtonState:
        return self._at(z.astype(np.float64))

    def _at(self, start: npt.NDArray[np.float64]) -> FedNewtonState:
        return FedNewtonState(self._search.init(start), start, np.zeros(1, np.int64), self._search.scale)

    def broadcast(self, state: FedNewtonState, seed: int) -> Arrays:
        scale = np.array([state.scale], np.float32)
        return {"mean": self.prompt(state), "center": state.search.center.astype(np.float32), "scale": scale}

    def step(self, state: FedNewtonState, updates: Sequence[Update], seed: int) -> tuple[FedNewtonState, Metrics]:
        """Returns the next state. `train_loss` is the loss of the mean."""
        total, search = merge(updates), state.search
        average = {name: array / total.weight for name, array in total.arrays.items()}
        expansion = Expansion(average["loss"], average["gradient"], _symmetric(average["hessian"]))
        arrays = self.broadcast(state, seed)
        population = near(arrays, seed, self._search.population, self._search.offsets)
        told = self._search.tell(search, population, expansion, float(average["decrease"][0]))
        metrics = {"train_loss": float(average["loss"][0])}
        if told.moves is search.moves:  # the last step was refused
            return replace(state, search=told), metrics
        return replace(state, search=told, before=search.center, drawn=_signed(seed)), metrics

    def prompt(self, state: FedNewtonState) -> npt.NDArray[np.float32]:
        return state.search.mean.astype(np.float32)

    def expected(self, state: FedNewtonState) -> Mapping[str, tuple[int, ...]]:
        return sums(self._settings, self._space)

    def restore(self, arrays: Arrays) -> FedNewtonState:
        return unpack(FedNewtonState, arrays)


def essential(arrays: Arrays) -> Arrays:
    """Returns the part of an update's arrays that the steps use.

    A step by ranks does not depend on a number that is added to all losses, and a Newton step not on the loss itself.
    """
    if "losses" in arrays:
        losses = arrays["losses"]
        return {"losses": losses - losses.mean()}
    return {**arrays, "loss": np.zeros_like(arrays["loss"])}


def server(config: FedCmaConfig, space: PromptSpace) -> FedCmaServer | FedNewtonServer:
    """Returns the half of the server that makes the config's steps."""
    return FedNewtonServer(config, space) if config.step == "newton" else FedCmaServer(config, space)


class FedCmaClient:
    """Scores the round's candidates on the local examples."""

    def __init__(self, settings: FedCmaSettings, space: PromptSpace, objectives: Objectives) -> None:
        self._settings, self._offsets = settings, space.offsets
        self._objectives = objectives

    def update(self, task: Task, private: Arrays) -> tuple[Update, Arrays]:
        draw = seeds.derive(task.seed, task.id.client_id, 0)
        arrays = self._expansion(task, draw) if self._settings.expansion_sent else self._losses(task, draw)
        weight = self._objectives.weight
        return Update({name: weight * array for name, array in arrays.items()}, weight), {}

    def _losses(self, task: Task, draw: int) -> dict[str, npt.NDArray[np.float64]]:
        return {"losses": finite(self._objectives.loss(candidates(task.arrays, task.seed, self._settings), draw))}

    def _expansion(self, task: Task, draw: int) -> dict[str, npt.NDArray[np.float64]]:
        population = near(task.arrays, task.seed, self._settings.population, self._offsets)
        found = self._objectives.expansion(np.concatenate([task.arrays["mean"][None], population]), draw)
        mean, center = finite(found.losses[:2])
        return {
            "loss": np.array([mean]),
            "decrease": np.array([center - mean]),  # a codec would round the difference of two losses away
            "gradient": np.nan_to_num(found.gradient),  # a candidate without finite scores does not move the mean
            "hessian": found.hessian[_upper(len(found.gradient))],
        }

    def prompt(self, arrays: Arrays) -> npt.NDArray[np.float32]:
        return arrays["mean"].astype(np.float32)


@lru_cache(maxsize=4)
def _upper(number: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the indices of the upper triangle of a matrix `[N, N]`, row by row."""
    return np.triu_indices(number)


def _symmetric(upper: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns the symmetric matrix `[N, N]` of an upper triangle `[N (N + 1) / 2]`, given row by row."""
    number = math.isqrt(2 * len(upper))
    matrix = np.zeros((number, number))
    matrix[_upper(number)] = upper
    return np.asarray(matrix + np.triu(matrix, 1).T)


class RanksReplay:
    """Replays a step by ranks from the order of the best candidates, all that CMA-ES uses of the losses."""

    def __init__(self, settings: FedCmaSettings) -> None:
        self._settings = settings
        # The initial step size is not used, because a replay begins at a state.
        self._search = CmaEs(settings.population, sigma=1.0, covariance="diagonal")

    def held(self, state: CmaState, broadcast: Arrays) -> Arrays:
        return pack(state)

    def broadcast(self, held: Arrays) -> Arrays:
        state = unpack(CmaState, held)
        return {"mean": state.mean.astype(np.float32), "scale": self._search.scale(state).astype(np.float32)}

    def news(self, after: CmaState, broadcast: Arrays, updates: Sequence[Update], seed: int) -> Arrays:
        total = merge(updates)
        order = np.argsort(total.arrays["losses"] / total.weight, kind="stable")
        best = order[: self._settings.population // 2]
        return {"best": best.astype(np.uint8 if self._settings.population <= 256 else np.int32)}

    def draw_ahead(self, broadcast: Arrays, seed: int) -> None:
        candidates(broadcast, seed, self._settings)

    def replayed(self, held: Arrays, news: Arrays, seed: int) -> Arrays:
        number = self._settings.population
        places = np.full(number, float(number))
        places[news["best"]] = np.arange(number // 2)
        population = candidates(self.broadcast(held), seed, self._settings)
        return pack(self._search.tell(unpack(CmaState, held), population, places))


class NewtonReplay:
    """Replays a Newton step from the mixture of the moves that it consists of.

    A step that follows a refused one consists of the moves of an earlier round, see `FedNewtonState`.
    """

    def __init__(self, settings: FedCmaSettings, offsets: int) -> None:
        self._population, self._offsets = settings.population, offsets

    def held(self, state: FedNewtonState, broadcast: Arrays) -> Arrays:
        points = {"mean": state.search.mean, "center": state.search.center, "before": state.before}
        arrays = {name: point.astype(np.float32) for name, point in points.items()}
        return {**arrays, "scale": np.array([state.scale], np.float32), "drawn": state.drawn}

    def broadcast(self, held: Arrays) -> Arrays:
        return {name: held[name] for name in ("mean", "center", "scale")}

    def news(self, after: FedNewtonState, broadcast: Arrays, updates: Sequence[Update], seed: int) -> Arrays:
        accepted = after.drawn[0] == _signed(seed)[0]
        return {"mixture": newton.mixture(after.search), "accepted": np.array([accepted], np.uint8)}

    def draw_ahead(self, broadcast: Arrays, seed: int) -> None:
        near(broadcast, seed, self._population, self._offsets)

    def replayed(self, held: Arrays, news: Arrays, seed: int) -> Arrays:
        arrays = dict(held)
        if news["accepted"][0]:
            arrays |= {"center": held["mean"], "before": held["center"], "drawn": _signed(seed)}
        around = {"mean": arrays["center"], "center": arrays["before"], "scale": held["scale"]}
        drawn = int(arrays["drawn"].view(np.uint64)[0])
        center = arrays["center"].astype(np.float64)
        moves = newton.moves_of(center, near(around, drawn, self._population, self._offsets), self._offsets)
        return {**arrays, "mean": newton.stepped(center, moves, news["mixture"]).astype(np.float32)}


def _signed(seed: int) -> npt.NDArray[np.int64]:
    return np.array([seed], np.uint64).view(np.int64)


def replay(settings: FedCmaSettings, space: PromptSpace) -> RanksReplay | NewtonReplay | None:
    """Returns the replay of the method's steps; None for a full covariance, whose state is larger than a broadcast."""
    if settings.expansion_sent:
        return NewtonReplay(settings, space.offsets)
    return None if settings.candidates_sent else RanksReplay(settings)


def settings(config: FedCmaConfig) -> FedCmaSettings:
    """Returns the settings that clients receive for a config."""
    return FedCmaSettings(
        population=config.population,
        candidates_sent=config.covariance == "full",
        expansion_sent=config.step == "newton",
    )


def _why_not_stale(config: FedCmaConfig) -> str:
    sums = "derivatives by the mixtures" if config.step == "newton" else "losses"
    return f"its updates are {sums} of the candidates of one round, and other rounds have other candidates"


def sums(settings: FedCmaSettings, space: PromptSpace) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of an update."""
    if not settings.expansion_sent:
        return {"losses": (settings.population,)}
    number = settings.population + space.offsets
    return {"loss": (1,), "decrease": (1,), "gradient": (number,), "hessian": (number * (number + 1) // 2,)}


def rules(settings: FedCmaSettings) -> UpdateRules:
    """Returns what every honest update satisfies."""
    if not settings.expansion_sent:
        return UpdateRules(Weight.EXAMPLES, {"losses": LOSS}, ranked="losses")
    return UpdateRules(Weight.EXAMPLES, {"loss": LOSS, "decrease": CHANGE}, check=_check_curvatures)


def _check_curvatures(update: Update) -> None:
    """Raises InvalidUpdate if a curvature is negative, which no cross-entropy has in mixtures of scores."""
    upper = update.arrays["hessian"]
    curvatures = upper[np.equal(*_upper(math.isqrt(2 * len(upper))))]
    if (curvatures < 0).any():
        raise InvalidUpdate(f"a curvature of {curvatures.min():g}", where="hessian", fix="none below 0")


METHOD = Method(
    name="fed-cma",
    config=FedCmaConfig,
    settings_type=FedCmaSettings,
    settings=settings,
    stale=_why_not_stale,
    server=server,
    client=FedCmaClient,
    needs_scores=lambda settings: settings.expansion_sent,
    replay=replay,
    sums=sums,
    essential=essential,
    rules=rules,
    # An expansion has N^2 / 2 numbers, and float16 moves its steps by less than their candidates do.
    uplink=lambda settings: "float16" if settings.expansion_sent else "float32",
)
