"""fed-bpt against pycma, the reference implementation and the paper's equations, and the effect of its options."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidJob, InvalidTensor
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, parse_job
from fedbbpt.methods.fed_bpt import (
    FedBptClient,
    FedBptConfig,
    FedBptServer,
    client_seed,
    clip,
    corrected_sigma,
    local_search,
    settings,
    shorten,
)
from fedbbpt.optim.cmaes import CmaEs, constants
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.projection import project
from fedbbpt.server.checks import decode_update
from fedbbpt.types import Phase, Population, Projection, ProjectionKind, Task, TaskId, Update
from tests.reports import dev_losses
from tests.tiny_run import fake_ptm, job
from tests.toys import Sphere

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns where matplotlib is missing
    import cma

DIM = 10
SPACE = LatentSpace(DIM, Projection(ProjectionKind.RADEMACHER, seed=1, tokens=2, scale=1.0, initial_text=""))


def task(client: str, round: int = 0, sigma: float = 1.0, seed: int = 4) -> Task:
    arrays = {"mean": np.zeros(DIM, np.float32), "sigma": np.array([sigma], np.float32)}
    return Task(TaskId("run", round, client, Phase.UPDATE), seed, arrays, 1.0)


def away(mean: npt.NDArray[np.float64]) -> float:
    """Returns the sphere's loss at a point."""
    return float(((mean - 1) ** 2).sum())


def test_the_step_size_follows_equation_6() -> None:
    sigmas, losses = np.ones((10, 8)), np.arange(10.0)
    assert corrected_sigma(sigmas, losses, local_population=5, parents="half") == pytest.approx(1.789, abs=5e-4)
    assert corrected_sigma(sigmas, losses, local_population=5, parents="all") == pytest.approx(2.0)


def test_equation_6_uses_only_the_better_half() -> None:
    losses = np.array([3.0, 1.0, 4.0, 2.0])
    sigmas = np.array([[9.0], [1.0], [9.0], [2.0]])
    assert corrected_sigma(sigmas, losses, 5, "half") == pytest.approx(2 * np.sqrt((1 + 4) / (4 * 5)))


@pytest.mark.parametrize("clients", [1, 2, 3, 7])
def test_equation_6_means_the_same_spread_for_any_number_of_clients(clients: int) -> None:
    sigma = corrected_sigma(np.ones((clients, 8)), np.zeros(clients), 5, "half")
    assert sigma == pytest.approx(np.sqrt(8 / 2.5))


def as_the_reference(n: int, clients: int, **options: Any) -> Any:
    """Returns a search of the reference implementation (NVFlare, research/fed-bpt), with pycma 3's step-size rule."""
    given = {"popsize": clients, "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA, "verbose": -10, "seed": 1}
    return cma.CMAEvolutionStrategy(np.zeros(n), 1.0, given | options)


@pytest.mark.parametrize("parents", ["half", "all"])
def test_the_server_steps_like_pycma(parents: str) -> None:
    """The clients' means are at a plausible distance, except one far away. pycma's covariance hardly matters here."""
    n, clients, sigma, rng = 500, 10, 1.789, np.random.default_rng(0)
    search = as_the_reference(n, clients, **({"CMA_mu": clients} if parents == "all" else {}))
    config = FedBptConfig.model_validate({"name": "fed-bpt", "parents": parents})
    server = FedBptServer(config, LatentSpace(n, SPACE.projection))
    state = server.init(0)
    for _ in range(4):
        means = state.mean + sigma * rng.standard_normal((clients, n))
        means[0] = state.mean + 50 * (means[0] - state.mean)
        losses = ((means - 1) ** 2).mean(axis=1)
        losses[0] = 0.0
        sigmas = np.full(8, state.sigma)
        spread = corrected_sigma(np.tile(sigmas, (clients, 1)), losses, 5, config.parents)
        search.sigma = spread
        search.ask()
        search.tell([mean.copy() for mean in means], list(losses))
        updates = [
            Update({"mean": mean, "loss": np.array([loss]), "sigmas": sigmas}, 1.0)
            for mean, loss in zip(means, losses, strict=True)
        ]
        before, (state, _) = state, server.step(state, updates, 0)
        np.testing.assert_allclose(state.mean, search.mean, atol=2e-3)
        assert state.sigma / before.sigma == pytest.approx(search.sigma / spread, rel=2e-4)


@pytest.mark.parametrize("covariance", ["identity", "diagonal"])
def test_a_repeatable_search_steps_like_pycma(covariance: str) -> None:
    """pycma has the same candidates, without mirror images. At n = 500, 8 generations hardly change a covariance."""
    n = 500
    config = FedBptConfig.model_validate({"name": "fed-bpt", "local_covariance": covariance})
    search, theirs = as_the_reference(n, 5, CMA_mirrors=0), [1.0]

    def tell(generation: int, population: Population) -> npt.NDArray[np.uint8]:
        losses = ((population - 1) ** 2).sum(axis=1)
        search.ask()
        search.tell([candidate.copy() for candidate in population], list(losses))
        theirs.append(search.sigma)
        return np.argsort(losses)[:2].astype(np.uint8)

    arrays = {"mean": np.zeros(n, np.float32), "sigma": np.ones(1, np.float32)}
    mean, sigmas = local_search(settings(config), arrays, 3, tell)
    np.testing.assert_allclose(mean, search.mean, atol=0.02)
    np.testing.assert_allclose(sigmas, theirs[:-1], rtol=1e-3)
    assert sigmas[-1] < 0.99


def test_local_weights_equal_pycmas() -> None:
    ours, theirs = constants(500, 5, "identity", "half"), as_the_reference(500, 5).sp.weights
    np.testing.assert_allclose(ours.weights, [0.730, 0.270], atol=5e-4)
    np.testing.assert_allclose(ours.weights, np.array(theirs)[:2], rtol=1e-12)
    assert ours.mu_eff == pytest.approx(1.65, abs=5e-3)
    assert ours.mu_eff == pytest.approx(theirs.mueff)


def test_full_covariance_adapts_its_step_size_by_the_path_in_any_dimension() -> None:
    """By default, pycma compares and injects two points along the last step from 300 dimensions on."""
    n, sphere = 320, Sphere()
    client = FedBptClient(settings(FedBptConfig(perturb_rate=0.0)), LatentSpace(n, SPACE.projection), sphere)
    start = {"mean": np.zeros(n, np.float32), "sigma": np.ones(1, np.float32)}
    update, _ = client.update(Task(TaskId("run", 0, "a", Phase.UPDATE), 4, start, 1.0), {})
    rng = seeds.rng(client_seed(4, "a", common=False), "fed-bpt")
    search = as_the_reference(n, 5, randn=lambda *shape: rng.standard_normal(shape), seed=np.nan)
    for sigma in update.arrays["sigmas"]:
        assert sigma == search.sigma
        population = search.ask()
        search.tell(population, [away(candidate) for candidate in population])
    np.testing.assert_array_equal(update.arrays["mean"], search.mean)


def test_the_projections_entries_have_the_deviation_of_the_reference_implementation() -> None:
    """It is alpha std / (sqrt(d) sigma): candidates of the initial step size make prompts of deviation alpha std."""
    d, alpha, sigma, std = 500, 0.8, 2.0, 0.05
    projection = Projection(ProjectionKind.NORMAL, seed=3, tokens=4, scale=alpha / sigma, initial_text="")
    entries = project(projection, np.eye(d, dtype=np.float32), np.zeros((4, 32), np.float32), std)
    assert entries.std() == pytest.approx(alpha * std / (np.sqrt(d) * sigma), rel=0.02)
    z = (sigma * seeds.normals(5, (50, d))).astype(np.float32)
    assert project(projection, z, np.zeros((4, 32), np.float32), std).std() == pytest.approx(alpha * std, rel=0.05)


def test_candidates_are_clipped_like_in_pycma() -> None:
    state = replace(CmaEs(5, 1.0, "identity").init(np.full(500, 3.0)), sigma=2.0)
    direction = np.full(500, 1 / np.sqrt(500))
    near, far = clip(np.stack([state.mean + 40 * direction, state.mean + 1000 * direction]), state)
    np.testing.assert_allclose(near, state.mean + 40 * direction)
    assert np.linalg.norm(far - state.mean) / 2.0 == pytest.approx(24.35, abs=0.01)
    search = as_the_reference(500, 5)
    search.mean, search.sigma = state.mean, 2.0
    theirs = search.repair_genotype(state.mean + 1000 * direction, copy_if_changed=True)
    np.testing.assert_allclose(far, theirs, rtol=1e-4)


def test_a_client_sends_the_step_size_of_each_iteration_and_the_loss_of_its_mean() -> None:
    sphere = Sphere()
    client = FedBptClient(settings(FedBptConfig(perturb_rate=0.0)), SPACE, sphere)
    update = client.update(task("a", sigma=0.25), {})[0]
    assert update.weight == 1.0
    assert update.arrays["sigmas"].shape == (8,)
    assert update.arrays["sigmas"][0] == 0.25
    assert update.arrays["loss"] == pytest.approx(((update.arrays["mean"] - 1) ** 2).sum())
    assert update.arrays["loss"][0] < DIM
    assert [len(population) for population in sphere.asked] == [5] * 8 + [1]


def test_clients_draw_their_own_candidates_unless_the_seed_is_common() -> None:
    for common in (False, True):
        asked = []
        for name in ("a", "b"):
            sphere = Sphere()
            FedBptClient(settings(FedBptConfig(common_seed=common)), SPACE, sphere).update(task(name), {})[0]
            asked.append(sphere.asked[0])
        assert np.array_equal(asked[0], asked[1]) == common


def test_equation_7_is_a_mean_of_ratios_or_the_reference_codes_ratio_of_means() -> None:
    for ratio, expected in (("examples", (0.5 / 2.0 + 1.5 / 6.0) / 2), ("means", 1.0 / 4.0)):
        sphere = Sphere()
        sphere.perturbed = np.array([2.0, 6.0])
        config = FedBptConfig.model_validate({"name": "fed-bpt", "perturb_ratio": ratio})
        update, _ = FedBptClient(settings(config), SPACE, sphere).update(task("a"), {})
        assert update.arrays["loss"] == pytest.approx(expected * away(update.arrays["mean"]))
    sphere.perturbed = np.array([6.0, 2.0])
    losses = {}
    for ratio in ("examples", "means"):
        config = FedBptConfig.model_validate({"name": "fed-bpt", "perturb_ratio": ratio})
        update, _ = FedBptClient(settings(config), SPACE, sphere).update(task("a"), {})
        losses[ratio] = update.arrays["loss"][0] / away(update.arrays["mean"])
    assert losses == pytest.approx({"examples": (0.5 / 6.0 + 1.5 / 2.0) / 2, "means": 1.0 / 4.0})


def test_inputs_are_perturbed_at_the_papers_rate_once_per_client_and_round() -> None:
    sphere = Sphere()
    client = FedBptClient(settings(FedBptConfig()), SPACE, sphere)
    for name, seed in (("a", 1), ("a", 2), ("b", 1)):
        client.update(task(name, seed=seed), {})
    assert {perturbation.rate for perturbation in sphere.perturbations} == {0.5}
    assert len(sphere.perturbations) == 3


@pytest.mark.parametrize("perturbed", [0.0, np.inf, np.nan])
@pytest.mark.parametrize("ratio", ["examples", "means"])
def test_a_tiny_or_missing_perturbed_loss_never_ranks_best(perturbed: float, ratio: str) -> None:
    """The ratio to an infinite loss would be 0, the best of all."""
    sphere = Sphere()
    sphere.perturbed = np.array([perturbed, perturbed])
    config = FedBptConfig.model_validate({"name": "fed-bpt", "perturb_ratio": ratio})
    update, _ = FedBptClient(settings(config), SPACE, sphere).update(task("a"), {})
    assert 100.0 <= update.arrays["loss"][0] < np.inf


def server_updates() -> list[Update]:
    rng = np.random.default_rng(0)
    return [
        Update({"mean": rng.normal(size=DIM), "loss": np.array([float(k)]), "sigmas": np.ones(8)}, 1.0)
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
    """Near candidates shrink the step size and far ones enlarge it, by the same factor for server and clients."""
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


def test_the_norm_limit_shortens_candidates_and_results_and_grows_by_one_per_round() -> None:
    config = FedBptConfig(perturb_rate=0.0, norm_limit=1.5, norm_limit_top=3.0)
    server, guarded = FedBptServer(config, SPACE), np.random.default_rng(0).normal(size=(6, DIM))
    state = server.init(0)
    for limit in (1.5, 2.5, 3.0, 3.0):
        arrays = server.broadcast(state, 0)
        assert arrays["limit"].tolist() == [limit]
        for covariance in ("full", "identity"):
            sphere = Sphere()
            chosen = config.model_copy(update={"local_covariance": covariance})
            client = FedBptClient(settings(chosen), SPACE, sphere)
            update, _ = client.update(Task(TaskId("run", 0, "a", Phase.UPDATE), 4, arrays, 1.0), {})
            lengths = [np.linalg.norm(candidate) for asked in sphere.asked for candidate in asked]
            assert max(lengths) == pytest.approx(limit)
            assert update.arrays["loss"] == pytest.approx(away(update.arrays["mean"]))
        short = np.linalg.norm(guarded, axis=1) <= limit
        np.testing.assert_array_equal(shorten(guarded, arrays)[short], guarded[short])
        state, _ = server.step(state, server_updates(), 0)
    assert "limit" not in FedBptServer(FedBptConfig(), SPACE).broadcast(state, 0)


RANKS: dict[str, Any] = {"name": "fed-bpt", "uplink": "ranks", "local_covariance": "identity"}


def test_ranks_with_a_full_covariance_are_refused() -> None:
    with pytest.raises(
        InvalidJob, match=r"job:3: method.uplink: ranks cannot be repeated if local_covariance is full.*'identity'"
    ):
        parse_job('[method]\nname = "fed-bpt"\nuplink = "ranks"\n')


def test_orders_are_a_few_bytes_that_codecs_leave_unchanged() -> None:
    """Kills: a codec that casts them, and int8 that rounds them at random."""
    server = FedBptServer(FedBptConfig.model_validate(RANKS), SPACE)
    update, _ = FedBptClient(settings(FedBptConfig.model_validate(RANKS)), SPACE, Sphere()).update(task("a"), {})
    assert update.arrays["orders"].nbytes + update.arrays["loss"].astype(np.float32).nbytes == 20
    for codec in CODECS.values():
        encoded = codec.encode(update.arrays, np.random.default_rng(0))
        shapes = {name: array.shape for name, array in update.arrays.items()}
        assert codec.decode(encoded, shapes)["orders"].tobytes() == update.arrays["orders"].tobytes()
        decode_update(replace(update, arrays=encoded), codec, server.expected(server.init(0)), {})


GOOD = np.tile(np.array([3, 1], np.uint8), (8, 1))


@pytest.mark.parametrize(
    ("orders", "what"),
    [
        (np.tile(np.array([3, 3], np.uint8), (8, 1)), r"orders: not the order of candidates; different .* from 0 to 4"),
        (np.tile(np.array([3, 5], np.uint8), (8, 1)), r"orders: not the order of candidates"),
        (np.concatenate([GOOD[:7], [[2, 2]]]).astype(np.uint8), r"orders: not the order of candidates"),
        (GOOD[:, :1], r"orders: shape \(8, 1\); \(8, 2\)"),
        (GOOD.astype(np.float32), r"orders: dtype float64; uint8"),
    ],
    ids=["twice", "beyond", "the last twice", "one place", "numbers"],
)
def test_malformed_orders_are_refused(orders: npt.NDArray[Any], what: str) -> None:
    server = FedBptServer(FedBptConfig.model_validate(RANKS), SPACE)
    expected = server.expected(server.init(0))
    loss = np.ones(1, np.float32)
    decode_update(Update({"orders": GOOD, "loss": loss}, 1.0), CODECS["float32"], expected, {})
    with pytest.raises(InvalidTensor, match=what):
        decode_update(Update({"orders": orders, "loss": loss}, 1.0), CODECS["float32"], expected, {})


def test_bytes_in_place_of_numbers_are_refused() -> None:
    server = FedBptServer(FedBptConfig(), SPACE)
    expected = server.expected(server.init(0))
    arrays: dict[str, npt.NDArray[Any]] = {"mean": np.ones(DIM, np.uint8), "loss": np.ones(1, np.float32)}
    arrays["sigmas"] = np.ones(8, np.float32)
    with pytest.raises(InvalidTensor, match="mean: dtype uint8; floating-point"):
        decode_update(Update(arrays, 1.0), CODECS["float32"], expected, {})


@pytest.mark.parametrize("common", [False, True])
def test_a_run_with_ranks_equals_the_run_with_means(common: bool, data: Path) -> None:
    """The coordinator passes on whose orders they are. The means differ by rounding to float32."""

    def losses_of(uplink: str, codec: str) -> list[float]:
        method = {**RANKS, "uplink": uplink, "common_seed": common, "local_iterations": 3}
        chosen = job(data, codec=codec).model_dump(mode="json") | {"method": method}
        return dev_losses(simulate(prepare(Job.model_validate(chosen)), fake_ptm(), lambda status: None)[1])

    ranks = losses_of("ranks", "float32")
    assert len(set(ranks)) == len(ranks) > 3
    assert ranks == pytest.approx(losses_of("mean", "float32"), rel=1e-5)
    assert ranks == losses_of("ranks", "float16")
