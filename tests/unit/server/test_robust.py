"""What the coordinator does to updates of which some are lies: ranks, limited measurements, and both in a search."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.errors import InvalidHello
from fedbbpt.job.config import Job
from fedbbpt.methods.fed_cma import FedCmaConfig, FedCmaServer, rules, settings
from fedbbpt.methods.update_rules import UpdateRules
from fedbbpt.optim.cmaes import CmaState
from fedbbpt.server.cohort import CohortRules
from fedbbpt.server.coordinator import Coordinator
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.robust.clip import Clip, lower_median
from fedbbpt.server.robust.defence import RULES, Defence
from fedbbpt.server.robust.measurements import limited
from fedbbpt.server.robust.ranks import losses_in_order, ranks
from fedbbpt.types import Hello, Measurement, Phase, Update
from tests.coordinators import SETTINGS, MeanServer

Floats = npt.NDArray[np.float64]
P, CLIENTS = 12, 10
drawn = st.integers(0, 2**32).map(lambda seed: seeds.rng(seed, "robust"))


def test_ranks_count_from_the_best_and_share_places() -> None:
    assert ranks(np.array([[3.0, 1.0, 1.0, 7.0], [2.0, 2.0, 2.0, 2.0]])).tolist() == [
        [2.0, 0.5, 0.5, 3.0],
        [1.5, 1.5, 1.5, 1.5],
    ]


@given(drawn)
def test_one_client_moves_a_mean_rank_by_no_more_than_its_share(rng: np.random.Generator) -> None:
    """The bound of the module `clip`: (P - 1) / (floor(n / 2) + 1), whatever the losses and the weights."""
    clients = int(rng.integers(1, 12))
    losses, weights = rng.normal(0, 1, (clients, P)), rng.integers(1, 10**6, clients).astype(np.float64)
    lie = losses.copy()
    lie[0] = rng.normal(0, 1e30, P) if rng.random() < 0.5 else -losses[0] * 1e30
    weights[0] = 10.0 ** rng.integers(0, 10)
    found, moved = (Clip().combine({"losses": ranks(each)}, weights, 0)["losses"] for each in (losses, lie))
    lengths = np.linalg.norm(ranks(losses), axis=1)
    assert np.ptp(lengths) < 1e-9, "all orders have the same length, so that ranks are never shortened"
    assert np.abs(found - moved).max() <= (P - 1) / (clients // 2 + 1) + 1e-9


@given(drawn)
def test_losses_follow_the_order_of_all_clients(rng: np.random.Generator) -> None:
    losses = rng.integers(0, 3, (CLIENTS, P)).astype(np.float64)
    order = rng.permutation(P).astype(np.float64)
    found = losses_in_order(order, losses)
    assert np.array_equal(np.argsort(found), np.argsort(order)), "also where medians are equal"
    assert abs(found.mean() - np.median(losses, axis=0).mean()) < 1e-6


def told(client: int, losses: Sequence[float] | Floats, weight: float = 10.0, **measured: float) -> Update:
    measurement = replace(Measurement(5.0, 10, 5, 100), **measured)  # type: ignore[arg-type]  # numbers of each kind
    return Update({"losses": weight * np.asarray(losses)}, weight, measurement, f"client-{client}")


RANKED = rules(settings(FedCmaConfig(step="ranks")))
BROADCAST = {"mean": np.zeros(3, np.float32), "scale": np.ones(3, np.float32)}


@pytest.mark.parametrize("rule", RULES)
def test_two_of_ten_who_reverse_and_scale_their_losses_do_not_turn_the_order(rule: str) -> None:
    """Kills: losses in place of ranks. With plain sums the two decide alone."""
    rng = np.random.default_rng(3)
    truth = np.arange(P, dtype=np.float64)
    updates = [told(client, truth + rng.normal(0, 1, P)) for client in range(8)]
    updates += [told(client, 1e30 * (P - truth)) for client in (8, 9)]
    plain = sum(update.arrays["losses"] for update in updates)
    assert np.argmin(plain) == P - 1
    (found,) = Defence(RULES[rule], 2).applied(updates, BROADCAST, RANKED, Phase.UPDATE, linear=True)  # type: ignore[index]  # a name
    order = np.argsort(found.arrays["losses"])
    assert np.abs(order - truth).max() <= 2
    assert found.weight == 100.0


def test_the_search_steps_as_with_sums_if_all_clients_agree() -> None:
    server = FedCmaServer(FedCmaConfig(step="ranks", population=P), Job().space())
    state: CmaState = server.init(0)
    losses = np.random.default_rng(0).gamma(2, 1, P)
    updates = [told(client, losses) for client in range(3)]
    defended = Defence(Clip(), 1).applied(updates, server.broadcast(state, 7), RANKED, Phase.UPDATE, linear=True)
    plain, metrics = server.step(state, updates, 7)
    found, found_metrics = server.step(state, defended, 7)
    assert np.array_equal(found.mean, plain.mean)
    assert found_metrics["train_loss"] == pytest.approx(metrics["train_loss"])


def test_points_are_clipped_by_their_way_from_the_broadcast() -> None:
    """Kills: a limit on the length of the point itself, which lets a liar go as far as the search has come."""
    start = np.full(2, 100.0, np.float32)
    ways = [[1.0, 0.0], [0.0, 1.0], [1000.0, 0.0]]
    updates = [Update({"z": start + np.array(way)}, 1.0, Measurement(), f"{i}") for i, way in enumerate(ways)]
    (found,) = Defence(Clip(), 1).applied(updates, {"z": start}, UpdateRules(), Phase.UPDATE, linear=True)
    np.testing.assert_allclose(found.arrays["z"] / found.weight, [100 + 2 / 3, 100 + 1 / 3])


@given(drawn)
def test_liars_move_a_measurement_no_further_than_the_others_reach(rng: np.random.Generator) -> None:
    """Kills: a liar that chooses the best round by a loss of 0, by 1e38, or by a billion dev examples."""
    liars = int(rng.integers(1, 4))
    honest = [
        Measurement(float(n * rng.gamma(2, 1)), n, int(rng.integers(0, n + 1)), 7)
        for n in map(int, rng.integers(1, 30, 2 * liars + 1))
    ]
    lies = [Measurement(float(rng.choice([0.0, 1e47])), 10**9, int(rng.choice([0, 10**9])), 7) for _ in range(liars)]
    total = sum(limited([*honest, *lies], liars), Measurement())
    means = [each.dev_loss_sum / each.dev_examples for each in honest]
    assert min(means) - 1e-9 <= total.dev_loss_sum / total.dev_examples <= max(means) + 1e-9
    assert total.dev_examples <= len([*honest, *lies]) * max(each.dev_examples for each in honest)
    assert total.dev_correct is not None and 0 <= total.dev_correct <= total.dev_examples
    assert total.queries == 7 * len([*honest, *lies])


def test_equal_measurements_stay_as_they_are() -> None:
    each = Measurement(5.0, 10, 5, 100)
    assert limited([each] * 3, 1) == [each] * 3
    assert limited([Measurement(), each, Measurement()], 1) == [Measurement(), each, Measurement()]
    unknown = Measurement(5.0, 10, None, 100)
    assert limited([unknown] * 3, 1) == [unknown] * 3


def test_finalists_are_limited_place_by_place() -> None:
    measured = Measurement(5.0, 10, 5)
    updates = [
        Update({}, 4.0, measured, f"{i}", finalists=(Measurement(x, 10, 5), Measurement(2.0, 10, 5)))
        for i, x in enumerate((1.0, 2.0, 1e30))
    ]
    found = Defence(Clip(), 1).applied(updates, {}, UpdateRules(), Phase.EVALUATE, linear=True)
    assert [each.finalists[0].dev_loss_sum for each in found] == [2.0, 2.0, 2.0]
    assert [each.finalists[1].dev_loss_sum for each in found] == [2.0, 2.0, 2.0]


def test_krum_hands_its_clients_to_a_method_that_needs_each() -> None:
    points = [0.0, 0.1, 0.2, 50.0, 0.3]
    updates = [
        Update({"mean": np.full(2, at), "loss": np.ones(1)}, 1.0, Measurement(1.0, 2, 1, 3), f"c{i}")
        for i, at in enumerate(points)
    ]
    found = Defence(RULES["krum"], 1).applied(updates, {}, UpdateRules(), Phase.UPDATE, linear=False)
    assert [each.client_id for each in found] == ["c0", "c1", "c2", "c4"]
    assert sum((each.measurement for each in found), Measurement()) == Measurement(5.0, 10, 5, 15)


def test_the_lower_median_is_reached_by_more_than_half() -> None:
    assert [lower_median(np.array(values)) for values in ([1.0], [1.0, 2.0], [3.0, 1.0, 2.0])] == [1.0, 1.0, 2.0]


def test_a_relay_is_refused_where_updates_are_compared() -> None:
    coordinator = Coordinator(
        method_name="mean",
        method=MeanServer(),
        codec=CODECS["float32"],
        settings=SETTINGS,
        seed=5,
        cohort=CohortRules(3, 3, 60.0),
        store=MemoryStore(),
        defence=Defence(Clip(), 1),
    )
    with pytest.raises(InvalidHello, match="a sum hides whose update is a lie"):
        coordinator.join(Hello("north", "key", 4, frozenset({"float32"}), relay=True), 0.0)
    coordinator.join(Hello("anna", "key", 4, frozenset({"float32"})), 0.0)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        ({"cohort": {"robust": "clip"}}, "needs their number"),
        ({"cohort": {"adversaries": 1}}, "without a rule"),
        ({"cohort": {"robust": "clip", "adversaries": 1}}, "may close with 2 clients"),
        ({"cohort": {"robust": "krum", "adversaries": 1, "clients": 8}}, "krum.* needs 5"),
        ({"cohort": {"robust": "clip", "adversaries": 2, "mode": "async", "clients": 20}}, "late updates"),
        ({"cohort": {"robust": "krum", "adversaries": 2, "clients": 2000}}, "each pair"),
        (
            {"cohort": {"robust": "median", "adversaries": 1, "clients": 10}, "method": {"name": "fed-bpt"}},
            "needs each client's result",
        ),
        (
            {"cohort": {"robust": "clip", "adversaries": 1, "clients": 10}, "task": {"views": ["Topic:"]}},
            "must be exact",
        ),
    ],
)
def test_a_defence_that_cannot_work_is_refused(job: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Job.model_validate(job)
