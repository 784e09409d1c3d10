"""fed-cma: CMA-ES by ranks and Newton steps on the global loss."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from pydantic import ValidationError

from fedbbpt import seeds
from fedbbpt.methods.fed_cma import FedCmaClient, FedCmaConfig, FedCmaServer, FedNewtonServer, candidates, settings
from fedbbpt.optim.cmaes import CmaEs, Covariance
from fedbbpt.optim.losses import WORST_LOSS, finite
from fedbbpt.prompts.latent import OFFSET_SCALE, LatentSpace
from fedbbpt.tasks.criterion import cross_entropy, expansion
from fedbbpt.types import (
    Expansion,
    Losses,
    Phase,
    Population,
    Projection,
    ProjectionKind,
    Scores,
    Task,
    TaskId,
    Update,
)
from tests.toys import Absolute, Ascending, Quadratic, ToyObjectives

DIM = 8
SPACE = LatentSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
OFFSET_SPACE = replace(SPACE, dim=DIM + 3, offsets=3)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_the_search_is_cma_es_on_the_global_objective(covariance: Covariance) -> None:
    """This holds for clients with very different optima."""
    config = FedCmaConfig(step="ranks", population=10, sigma=0.6, covariance=covariance)
    server = FedCmaServer(config, SPACE)
    clients = [Absolute(-1.0, 30), Absolute(2.0, 10), Absolute(5.0, 2)]
    halves = [FedCmaClient(settings(config), SPACE, client) for client in clients]
    search = CmaEs(10, 0.6, covariance)
    state, alone = server.init(0), search.init(np.zeros(DIM))
    for round in range(30):
        seed = seeds.derive(3, round)
        arrays = server.broadcast(state, seed)
        updates = [
            half.update(Task(TaskId("run", round, str(k), Phase.UPDATE), seed, arrays, 1.0), {})[0]
            for k, half in enumerate(halves)
        ]
        state, metrics = server.step(state, updates, seed)
        population = search.ask(alone, seed)
        losses = sum(client.weight / 42 * client.loss(population, 0) for client in clients)
        assert metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        alone = search.tell(alone, population, np.asarray(losses))
        # Candidates are sent as float32.
        np.testing.assert_allclose(state.mean, alone.mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_both_halves_see_the_same_candidates(covariance: Covariance) -> None:
    config = FedCmaConfig(step="ranks", population=6, covariance=covariance)
    server = FedCmaServer(config, SPACE)
    state = server.init(0)
    task = Task(TaskId("run", 0, "a", Phase.UPDATE), 5, server.broadcast(state, 5), 1.0)
    client = Ascending(weight=4)
    update = FedCmaClient(settings(config), SPACE, client).update(task, {})[0]
    asked = client.asked
    np.testing.assert_array_equal(update.arrays["losses"], 4 * np.arange(6.0))
    np.testing.assert_array_equal(asked[0], candidates(server.broadcast(state, 5), 5, settings(config)))
    np.testing.assert_array_equal(asked[0], asked[0].astype(np.float32))
    told, _ = server.step(state, [update], 5)
    assert np.linalg.norm(told.mean - asked[0][0]) < np.linalg.norm(told.mean - asked[0][5])


def test_the_server_takes_the_candidates_from_the_rounds_seed() -> None:
    config = FedCmaConfig(step="ranks", population=6)
    server = FedCmaServer(config, SPACE)
    state = server.init(0)
    update = Update({"losses": np.arange(6.0)}, 1.0)
    assert not np.array_equal(server.step(state, [update], 1)[0].mean, server.step(state, [update], 2)[0].mean)


def test_losses_that_are_not_finite_become_the_worst() -> None:
    np.testing.assert_array_equal(finite(np.array([1.0, np.nan, np.inf, -np.inf])), [1, *[WORST_LOSS] * 3])
    np.testing.assert_array_equal(finite(np.array([1e4, np.nan])), [1e4, 1e4])
    np.testing.assert_array_equal(finite(np.array([np.nan])), [WORST_LOSS])


class Softmax(ToyObjectives):
    """A client whose scores of class k on example i are sum_j z_j weights_ijk plus the offset of the class."""

    def __init__(self, weights: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> None:
        self._weights, self._labels = weights, labels
        self.weight = float(len(labels))

    def loss(self, population: Population, draw: int) -> Losses:
        return cross_entropy(self._scores(population), self._labels)

    def expansion(self, population: Population, draw: int) -> Expansion:
        return expansion(self._scores(population), OFFSET_SCALE * np.eye(3), self._labels)

    def _scores(self, population: Population) -> Scores:
        scores = np.einsum("pj,ijk->pik", population[:, :-3], self._weights)
        return OFFSET_SPACE.shifted(scores.astype(np.float32), population)


def test_a_newton_step_equals_a_softmax_regression_on_all_examples() -> None:
    """Each client has examples of one class only. Scores are linear in z, so the expansion is exact."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(60, DIM, 3))
    labels = np.argmax(np.einsum("ijk->ik", weights) + rng.gumbel(size=(60, 3)) + [0.0, 1.0, 2.0], axis=1)
    clients = [Softmax(weights[labels == k], labels[labels == k]) for k in range(3)]
    config = FedCmaConfig(step="newton", population=DIM + 1, ridge=0.02)
    server = FedNewtonServer(config, OFFSET_SPACE)
    halves = [FedCmaClient(settings(config), OFFSET_SPACE, client) for client in clients]
    state, whole = server.init(0), Softmax(weights, labels)
    for round in range(8):
        arrays = server.broadcast(state, round)
        tasks = [Task(TaskId("run", round, str(k), Phase.UPDATE), round, arrays, 1.0) for k in range(3)]
        updates = [half.update(task, {})[0] for half, task in zip(halves, tasks, strict=True)]
        mean = server.prompt(state).astype(np.float64)
        state, metrics = server.step(state, updates, round)
        assert metrics["train_loss"] == pytest.approx(whole.loss(mean[None], 0)[0], rel=1e-5)

    def objective(z: npt.NDArray[np.float64]) -> float:
        return float(whole.loss(z[None], 0)[0] + 0.01 * z @ z)

    mean, steps = state.search.mean, 0.05 * np.eye(DIM + 3)
    slopes = [objective(mean + step) - objective(mean - step) for step in steps]
    np.testing.assert_allclose(slopes, 0.0, atol=1e-4)
    assert objective(mean) < objective(np.zeros(DIM + 3)) / 2


def test_clients_judge_a_newton_step_on_the_examples_that_they_score() -> None:
    """The decrease that is sent compares the mean with the centre, whatever the client's loss was before."""
    config = FedCmaConfig(step="newton", population=4)
    server, client = FedNewtonServer(config, SPACE), Quadratic(np.ones(DIM), weight=5.0)
    first = server.init(0)
    state = replace(first, search=replace(first.search, mean=np.full(DIM, 0.5), predicted=1.0))
    task = Task(TaskId("run", 1, "a", Phase.UPDATE), 5, server.broadcast(state, 5), 1.0)
    update = FedCmaClient(settings(config), SPACE, client).update(task, {})[0]
    assert update.arrays["loss"] == pytest.approx(5 * 0.25)
    assert update.arrays["decrease"] == pytest.approx(5 * 0.75)
    assert {name: array.shape for name, array in update.arrays.items()} == server.expected(state)


def test_a_newton_step_and_a_full_covariance_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="adapts no covariance"):
        FedCmaConfig(step="newton", covariance="full")


def test_settings_hold_what_clients_need() -> None:
    assert settings(FedCmaConfig(population=9)).candidates_sent is False
    assert settings(FedCmaConfig(step="ranks", covariance="full")).candidates_sent is True
    assert settings(FedCmaConfig(population=9)).population == 9
    assert settings(FedCmaConfig()).expansion_sent is True
    assert settings(FedCmaConfig(step="ranks")).expansion_sent is False
