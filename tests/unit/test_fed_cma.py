import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.interfaces import Objective
from fedbbpt.methods.fed_cma import METHOD, FedCmaConfig, FedCmaServer, candidates, settings
from fedbbpt.optim.cmaes import CmaEs, Covariance
from fedbbpt.optim.losses import WORST_LOSS, finite
from fedbbpt.types import (
    Losses,
    Perturbation,
    Phase,
    Population,
    Projection,
    ProjectionKind,
    PromptSpace,
    Task,
    TaskId,
    Update,
)

DIM = 8
SPACE = PromptSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))


class Absolute:
    """A client that wants z at one place."""

    def __init__(self, place: float, weight: float) -> None:
        self.place, self.weight = place, weight

    def loss(self, population: Population) -> Losses:
        losses: Losses = np.abs(population - self.place).mean(axis=1)
        return losses

    def perturbed(self, perturbation: Perturbation) -> Objective:
        raise NotImplementedError


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_it_is_cma_es_on_the_global_objective(covariance: Covariance) -> None:
    """However skewed the clients are."""
    config = FedCmaConfig(population=10, sigma=0.6, covariance=covariance)
    server = FedCmaServer(config, SPACE)
    clients = [Absolute(-1.0, 30), Absolute(2.0, 10), Absolute(5.0, 2)]
    halves = [METHOD.client(settings(config), SPACE, client) for client in clients]
    search = CmaEs(10, 0.6, covariance)
    state, alone = server.init(0), search.init(np.zeros(DIM))
    for round in range(30):
        seed = seeds.derive(3, round)
        arrays = server.broadcast(state, seed)
        updates = [
            half.update(Task(TaskId("run", round, str(k), Phase.UPDATE), seed, arrays, 1.0))
            for k, half in enumerate(halves)
        ]
        state, metrics = server.step(state, updates, seed)
        population = search.ask(alone, seed)
        losses = sum(client.weight / 42 * client.loss(population) for client in clients)
        assert metrics["train_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        alone = search.tell(alone, population, np.asarray(losses))
        # Candidates travel as float32.
        np.testing.assert_allclose(state.mean, alone.mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_both_halves_see_the_same_candidates(covariance: Covariance) -> None:
    config = FedCmaConfig(population=6, covariance=covariance)
    server = FedCmaServer(config, SPACE)
    asked: list[Population] = []

    class Recorder(Absolute):
        def loss(self, population: Population) -> Losses:
            asked.append(population)
            return np.arange(6.0)

    state = server.init(0)
    task = Task(TaskId("run", 0, "a", Phase.UPDATE), 5, server.broadcast(state, 5), 1.0)
    update = METHOD.client(settings(config), SPACE, Recorder(0, 4)).update(task)
    np.testing.assert_array_equal(update.arrays["losses"], 4 * np.arange(6.0))
    np.testing.assert_array_equal(asked[0], candidates(server.broadcast(state, 5), 5, settings(config)))
    np.testing.assert_array_equal(asked[0], asked[0].astype(np.float32))
    told, _ = server.step(state, [update], 5)
    assert np.linalg.norm(told.mean - asked[0][0]) < np.linalg.norm(told.mean - asked[0][5])


def test_the_server_takes_the_candidates_from_the_rounds_seed() -> None:
    config = FedCmaConfig(population=6)
    server = FedCmaServer(config, SPACE)
    state = server.init(0)
    update = Update({"losses": np.arange(6.0)}, 1.0, {})
    assert not np.array_equal(server.step(state, [update], 1)[0].mean, server.step(state, [update], 2)[0].mean)


def test_losses_that_are_not_finite_become_the_worst() -> None:
    np.testing.assert_array_equal(finite(np.array([1.0, np.nan, np.inf, -np.inf])), [1, *[WORST_LOSS] * 3])
    np.testing.assert_array_equal(finite(np.array([1e4, np.nan])), [1e4, 1e4])
    np.testing.assert_array_equal(finite(np.array([np.nan])), [WORST_LOSS])


def test_what_clients_must_know() -> None:
    assert settings(FedCmaConfig(population=9)).candidates_sent is False
    assert settings(FedCmaConfig(covariance="full")).candidates_sent is True
    assert settings(FedCmaConfig(population=9)).population == 9
