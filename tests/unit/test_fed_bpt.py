from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.interfaces import Objective
from fedbbpt.methods.fed_bpt import METHOD, FedBptConfig, FedBptServer, clip, corrected_sigma, settings
from fedbbpt.optim.cmaes import CmaEs
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

DIM = 10
SPACE = PromptSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))


def task(client: str, round: int = 0, sigma: float = 1.0, seed: int = 4) -> Task:
    arrays = {"mean": np.zeros(DIM, np.float32), "sigma": np.array([sigma], np.float32)}
    return Task(TaskId("run", round, client, Phase.UPDATE), seed, arrays, 1.0)


class Sphere:
    weight = 17.0

    def __init__(self) -> None:
        self.asked: list[Population] = []
        self.perturbations: list[Perturbation] = []

    def loss(self, population: Population) -> Losses:
        self.asked.append(population)
        losses: Losses = ((population - 1) ** 2).sum(axis=1)
        return losses

    def perturbed(self, perturbation: Perturbation) -> Objective:
        self.perturbations.append(perturbation)
        return lambda population: np.full(len(population), 4.0)


def test_equation_6() -> None:
    sigmas, losses = np.ones((10, 8)), np.arange(10.0)
    assert corrected_sigma(sigmas, losses, local_population=5, parents="half") == pytest.approx(1.789, abs=5e-4)
    assert corrected_sigma(sigmas, losses, local_population=5, parents="all") == pytest.approx(2.0)


def test_equation_6_looks_at_the_better_half_only() -> None:
    losses = np.array([3.0, 1.0, 4.0, 2.0])
    sigmas = np.array([[9.0], [1.0], [9.0], [2.0]])
    assert corrected_sigma(sigmas, losses, 5, "half") == pytest.approx(2 * np.sqrt((1 + 4) / (4 * 5)))


@pytest.mark.parametrize("clients", [1, 2, 3, 7])
def test_equation_6_means_the_same_spread_for_any_number_of_clients(clients: int) -> None:
    sigma = corrected_sigma(np.ones((clients, 8)), np.zeros(clients), 5, "half")
    assert sigma == pytest.approx(np.sqrt(8 / 2.5))


def test_clips_as_pycma_does() -> None:
    state = replace(CmaEs(5, 1.0, "identity").init(np.full(500, 3.0)), sigma=2.0)
    direction = np.full(500, 1 / np.sqrt(500))
    near, far = clip(np.stack([state.mean + 40 * direction, state.mean + 1000 * direction]), state)
    np.testing.assert_allclose(near, state.mean + 40 * direction)
    assert np.linalg.norm(far - state.mean) / 2.0 == pytest.approx(24.35, abs=0.01)


def test_a_client_sends_the_step_size_of_each_iteration_and_the_loss_of_its_mean() -> None:
    sphere = Sphere()
    client = METHOD.client(settings(FedBptConfig()), SPACE, sphere)
    update = client.update(task("a", sigma=0.25))
    assert update.weight == 1.0
    assert update.arrays["sigmas"].shape == (8,)
    assert update.arrays["sigmas"][0] == 0.25
    assert update.arrays["loss"] == pytest.approx(((update.arrays["mean"] - 1) ** 2).sum())
    assert update.arrays["loss"][0] < DIM
    assert [len(population) for population in sphere.asked] == [5] * 8 + [1]


def test_clients_draw_their_own_candidates_unless_told_otherwise() -> None:
    for common in (False, True):
        asked = []
        for name in ("a", "b"):
            sphere = Sphere()
            METHOD.client(settings(FedBptConfig(common_seed=common)), SPACE, sphere).update(task(name))
            asked.append(sphere.asked[0])
        assert np.array_equal(asked[0], asked[1]) == common


def test_the_perturbed_objective_is_the_ratio_of_losses_and_drawn_anew_each_round() -> None:
    sphere = Sphere()
    client = METHOD.client(settings(FedBptConfig(perturb_rate=0.4)), SPACE, sphere)
    update = client.update(task("a", seed=1))
    client.update(task("a", seed=2))
    assert update.arrays["loss"] == pytest.approx(((update.arrays["mean"] - 1) ** 2).sum() / 4)
    first, second = sphere.perturbations
    assert first.rate == second.rate == 0.4
    assert first.seed != second.seed


def server_updates() -> list[Update]:
    rng = np.random.default_rng(0)
    return [
        Update({"mean": rng.normal(size=DIM), "loss": np.array([float(k)]), "sigmas": np.ones(8)}, 1.0, {})
        for k in range(4)
    ]


def test_the_server_recombines_the_better_half_or_all() -> None:
    updates = server_updates()
    means = np.stack([update.arrays["mean"] for update in updates])
    for parents, count in (("half", 2), ("all", 4)):
        server = FedBptServer(FedBptConfig(parents=parents), SPACE)
        state, metrics = server.step(server.init(0), updates, 0)
        weights, *_ = np.linalg.lstsq(means.T, state.mean)
        assert (weights[:count] > 1e-3).all()
        np.testing.assert_allclose(weights[count:], 0, atol=1e-12)
        assert weights.sum() == pytest.approx(1.0)
        assert metrics["train_loss"] == pytest.approx(1.5)


def test_the_clients_step_size_follows_the_servers() -> None:
    """Candidates no further off than chance give a smaller step, far ones a larger: by the same factor for both."""
    server = FedBptServer(FedBptConfig(sigma=0.5), SPACE)
    start = server.init(0)
    near = [replace(u, arrays={**u.arrays, "mean": u.arrays["mean"] * 1e-3}) for u in server_updates()]
    far = [replace(u, arrays={**u.arrays, "mean": np.full(DIM, 1e3)}) for u in server_updates()]
    assert server.step(start, near, 0)[0].sigma < 0.5 < server.step(start, far, 0)[0].sigma


@pytest.mark.parametrize("sigma", [0.0, -1.0, 1e200])
def test_impossible_step_sizes_do_not_stop_the_search(sigma: float) -> None:
    server = FedBptServer(FedBptConfig(), SPACE)
    updates = [replace(u, arrays={**u.arrays, "sigmas": np.full(8, sigma)}) for u in server_updates()]
    state, _ = server.step(server.init(0), updates, 0)
    assert 0 < state.sigma < 10
    assert np.isfinite(state.mean).all()
