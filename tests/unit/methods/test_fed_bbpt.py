"""fed-bbpt with soft prompts: SPSA at the clients, averages at the server."""

import numpy as np
import pytest

from fedbbpt import seeds
from fedbbpt.methods.fed_bbpt import FedBbptClient, FedBbptConfig, FedBbptServer, settings
from fedbbpt.optim.spsa import SpsaGc
from fedbbpt.prompts.generator import Generator
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.types import Phase, Projection, ProjectionKind, Task, TaskId, Update
from tests.toys import Sphere

DIM = 5
SPACE = LatentSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))
CONFIG = FedBbptConfig(local_steps=3, estimates=4, code=2, hidden=3, generator_seed=9)


def task(round: int, theta: np.ndarray, client: str = "a") -> Task:
    return Task(TaskId("run", round, client, Phase.UPDATE), 21, {"theta": theta.astype(np.float32)}, 1.0)


def test_a_round_makes_local_steps_of_spsa_with_gains_counted_over_the_run() -> None:
    sphere = Sphere(weight=6.0)
    update = FedBbptClient(settings(CONFIG), SPACE, sphere).update(task(4, np.zeros(29)), {})[0]
    generator = Generator(DIM, code=2, hidden=3, seed=9)
    search = SpsaGc(4, CONFIG.a, CONFIG.alpha, CONFIG.o, CONFIG.c, CONFIG.gamma, CONFIG.beta)
    theta, momentum = np.zeros(generator.size), np.zeros(generator.size)
    for j in range(3):
        i = 4 * 3 + j + 1
        c_i, a_i = CONFIG.c / i**CONFIG.gamma, CONFIG.a / (i + CONFIG.o) ** CONFIG.alpha
        state = search.init(theta)
        unit = search.ask(state, seeds.derive(21, "a", j))[:4] - theta  # step 1: c Delta
        delta = unit / CONFIG.c
        plus = ((generator(theta + c_i * delta) - 1) ** 2).sum(axis=1)
        minus = ((generator(theta - c_i * delta) - 1) ** 2).sum(axis=1)
        g = ((plus - minus)[:, None] / (2 * c_i * delta)).mean(axis=0)
        momentum = CONFIG.beta * momentum + g
        theta = theta - a_i * (g + CONFIG.beta * momentum)
    np.testing.assert_allclose(update.arrays["theta"], 6.0 * theta, rtol=1e-6, atol=1e-9)
    assert [len(population) for population in sphere.asked] == [8] * 3


def test_clients_perturb_in_their_own_directions() -> None:
    one, other = Sphere(weight=6.0), Sphere(weight=6.0)
    theta = Generator(DIM, 2, 3, 9).init()
    FedBbptClient(settings(CONFIG), SPACE, one).update(task(0, theta, "a"), {})[0]
    FedBbptClient(settings(CONFIG), SPACE, other).update(task(0, theta, "b"), {})[0]
    assert not np.array_equal(one.asked[0], other.asked[0])


def test_the_server_averages_by_the_number_of_examples() -> None:
    server = FedBbptServer(CONFIG, SPACE)
    updates = [
        Update({"theta": 3 * np.full(29, 1.0), "loss": np.array([3 * 2.0])}, 3.0),
        Update({"theta": 1 * np.full(29, 5.0), "loss": np.array([1 * 6.0])}, 1.0),
    ]
    state, metrics = server.step(server.init(0), updates, 0)
    np.testing.assert_allclose(state.theta, 2.0)
    assert metrics["train_loss"] == pytest.approx(3.0)
