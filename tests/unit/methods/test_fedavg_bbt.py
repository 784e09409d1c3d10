"""fedavg-bbt: CMA-ES at each client, averages at the server."""

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.methods.fedavg_bbt import FedavgBbtClient, FedavgBbtConfig, FedavgBbtServer, settings
from fedbbpt.optim.cmaes import CmaEs
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.types import Phase, Projection, ProjectionKind, Task, TaskId, Update
from tests.toys import Absolute

DIM = 5
SPACE = LatentSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
CONFIG = FedavgBbtConfig(sigma=0.5, local_population=6, local_iterations=3)


def answer(config: FedavgBbtConfig, client: Absolute) -> Update:
    server = FedavgBbtServer(config, SPACE)
    task = Task(TaskId("run", 0, "a", Phase.UPDATE), 5, server.broadcast(server.init(0), 5), 1.0)
    return FedavgBbtClient(settings(config), SPACE, client).update(task, {})[0]


def test_a_client_runs_cma_es_from_the_broadcast() -> None:
    client = Absolute(2.0, weight=3.0)
    update = answer(CONFIG, client)
    search = CmaEs(6, 0.5, "identity")
    state, losses = search.init(np.zeros(DIM)), []
    for generation in range(3):
        population = search.ask(state, seeds.derive(5, "a", generation))
        np.testing.assert_array_equal(client.asked[generation], population)
        losses.append(np.abs(population - 2.0).mean(axis=1))
        state = search.tell(state, population, losses[-1])
    np.testing.assert_array_equal(update.arrays["mean"], 3 * state.mean)
    np.testing.assert_array_equal(update.arrays["sigma"], [3 * state.sigma])
    np.testing.assert_allclose(update.arrays["loss"], [3 * np.mean(losses)])
    assert update.weight == 3.0


def test_the_best_candidate_of_all_generations_is_sent_if_the_job_says_so() -> None:
    client = Absolute(2.0, weight=3.0)
    update = answer(CONFIG.model_copy(update={"sends": "best"}), client)
    candidates = np.concatenate(client.asked)
    best = candidates[np.abs(candidates - 2.0).mean(axis=1).argmin()]
    np.testing.assert_array_equal(update.arrays["mean"], 3 * best)


def test_the_server_averages_by_examples() -> None:
    server = FedavgBbtServer(CONFIG, SPACE)
    updates = [
        Update({"mean": n * np.full(DIM, place), "sigma": n * np.array([size]), "loss": n * np.array([size])}, n)
        for n, place, size in [(30.0, 1.0, 0.2), (10.0, -3.0, 0.6)]
    ]
    state, metrics = server.step(server.init(0), updates, 0)
    np.testing.assert_allclose(state.mean, np.zeros(DIM), atol=1e-12)
    assert state.sigma == pytest.approx(0.3)
    assert metrics["train_loss"] == pytest.approx(0.3)
    np.testing.assert_allclose(server.broadcast(state, 1)["sigma"], [0.3], rtol=1e-6)


def test_the_step_size_stays_positive_for_any_update() -> None:
    server = FedavgBbtServer(CONFIG, SPACE)
    hostile = Update({"mean": np.ones(DIM), "sigma": np.array([-1.0]), "loss": np.zeros(1)}, 1.0)
    state, _ = server.step(server.init(0), [hostile], 0)
    assert server.broadcast(state, 0)["sigma"][0] > 0
