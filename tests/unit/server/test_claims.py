"""What a client claims: honest updates of every kind pass, and lies that the coordinator can recognise do not."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt import seeds
from fedbbpt.codecs import CODECS
from fedbbpt.codecs.travelling import packed, unpacked
from fedbbpt.errors import InvalidUpdate
from fedbbpt.job.config import Job
from fedbbpt.methods import readout_rounds
from fedbbpt.methods.update_rules import UpdateRules, Weight
from fedbbpt.server.claims import Known, check_claims, known
from fedbbpt.tasks import readout
from fedbbpt.tasks.criterion import MAX_LOSS, cross_entropies, expansion
from fedbbpt.types import Arrays, Measurement, Phase, Receipt, Sampling, TaskId, Update
from tests.coordinators import Bench

EXAMPLES, DEV, P = 12, 6, 5
MEASURED = Measurement(3.0, DEV, 2, 40)
TASK = TaskId("run", 3, "anna", Phase.UPDATE)


def rules_of(**method: object) -> UpdateRules:
    config = Job.model_validate({"method": method}).method
    definition = Job.model_validate({"method": method}).definition()
    found: UpdateRules = definition.rules(definition.settings(config))
    return found


RANKS = rules_of(name="fed-cma", step="ranks")
NEWTON = rules_of(name="fed-cma")
SEARCH = Known(EXAMPLES, False, RANKS, True, 0, None)


def losses(scale: float = 1.0) -> Update:
    return Update({"losses": EXAMPLES * scale * np.linspace(0.1, 2, P)}, float(EXAMPLES), MEASURED)


def travelled(arrays: Arrays, weight: float, codec: str = "float32") -> Arrays:
    """Returns the arrays as the coordinator decodes them."""
    way = CODECS[codec]
    shapes = {name: array.shape for name, array in arrays.items()}
    encoded = way.encode(packed(arrays, weight, {}), np.random.default_rng(0))
    return unpacked(way.decode(encoded, shapes), weight, {})


def test_an_honest_update_passes() -> None:
    check_claims(losses(), SEARCH)
    check_claims(losses(1e37), SEARCH)
    check_claims(losses(), replace(SEARCH, dev_examples=DEV, most_dev=DEV))


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (replace(losses(), weight=1e308), r"weight: 1e\+308; 12, the number of examples that the client joined with"),
        (replace(losses(), weight=13.0), "weight: 13"),
        (replace(losses(), weight=11.0), "weight: 11"),
        (replace(losses(), weight=11.5), "weight: 11.5"),
        (Update({"losses": -losses().arrays["losses"]}, 12.0, MEASURED), "losses: -2 for each example; from 0"),
        (
            replace(losses(), measurement=Measurement(1e300, 0, 0)),
            r"measurement.dev_loss_sum: 1e\+300; at most 0 for 0 dev examples",
        ),
        (replace(losses(), measurement=Measurement(1e300, DEV, 0)), "dev_loss_sum"),
        (replace(losses(), finalists=(MEASURED, Measurement(1e300, DEV, 0))), r"finalists\[1\].dev_loss_sum"),
    ],
    ids=range(8),
)
def test_a_lie_is_refused_in_words(lie: Update, message: str) -> None:
    with pytest.raises(InvalidUpdate, match=message):
        check_claims(lie, SEARCH)


def test_the_number_of_dev_examples_stays_the_same() -> None:
    before = replace(SEARCH, dev_examples=DEV + 1)
    with pytest.raises(InvalidUpdate, match="6; 7, as in the client's measurements before"):
        check_claims(losses(), before)
    with pytest.raises(InvalidUpdate, match="6; 0, because the task asks for no measurement"):
        check_claims(losses(), replace(SEARCH, measures=False))
    with pytest.raises(InvalidUpdate, match="at most 5, the run's batch_examples"):
        check_claims(losses(), replace(SEARCH, most_dev=5))


def test_what_is_known_depends_on_the_task() -> None:
    """Kills: samples that are compared with each other; a relay that is compared with itself when a client is away."""

    def found(task: TaskId, sampling: Sampling, *, fits: bool = False, relay: bool = False) -> Known:
        return known(task, RANKS, sampling, fits=fits, examples=12, relay=relay, dev_examples=6)

    assert found(TASK, Sampling()).dev_examples == 6
    assert found(TASK, Sampling(), relay=True).dev_examples is None
    sampled = found(TASK, Sampling(4, 1))
    assert (sampled.dev_examples, sampled.most_dev) == (None, 4)
    assert [found(TASK, Sampling(0, every)).measures for every in (1, 2, 3)] == [True, False, True]
    assert found(TASK, Sampling(0, 2), fits=True).measures
    last = found(replace(TASK, phase=Phase.EVALUATE), Sampling(4, 5))
    assert (last.measures, last.most_dev, last.rules.weight) == (True, 0, Weight.ANY)
    assert not found(replace(TASK, phase=Phase.TUNE), Sampling()).measures


def test_a_relay_may_send_less_but_not_more() -> None:
    relay = replace(SEARCH, relay=True)
    check_claims(replace(losses(), weight=5.0), relay)
    with pytest.raises(InvalidUpdate, match="13; at most 12"):
        check_claims(replace(losses(), weight=13.0), relay)


scores = st.integers(0, 2**32).map(lambda seed: seeds.rng(seed, "scores"))


@given(scores, st.floats(-3, 3), st.sampled_from(["float32", "float16", "bfloat16", "int8", "int4"]))
def test_no_honest_newton_step_is_refused(rng: np.random.Generator, size: float, codec: str) -> None:
    """Kills: a bound below what scores can give, or one that the codec's error breaks."""
    count, classes = int(rng.integers(1, 9)), int(rng.integers(2, 5))
    answers = rng.normal(0, 10**size, (P + 1, count, classes)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    found = expansion(answers, np.eye(classes)[:2], labels)
    mean, center = found.losses[:2]
    arrays = {
        "loss": np.array([mean]),
        "decrease": np.array([center - mean]),
        "gradient": found.gradient,
        "hessian": found.hessian[np.triu_indices(len(found.gradient))],
    }
    if codec == "float16" and max(np.abs(array).max() for array in arrays.values()) > 3e4:
        return
    sums = {name: count * array for name, array in arrays.items()}
    update = Update(travelled(sums, count, codec), float(count), MEASURED)
    check_claims(update, replace(SEARCH, examples=count, rules=NEWTON))


@given(scores, st.booleans(), st.floats(-2, 6))
def test_no_honest_fit_is_refused(rng: np.random.Generator, whole: bool, size: float) -> None:
    """Also if some scores are not finite, so that the weight is lower than the number of examples."""
    read, dev, classes = int(rng.integers(1, 9)), int(rng.integers(0, 7)), int(rng.integers(2, 5))
    texts = classes + int(rng.integers(0, 3))
    columns = rng.normal(rng.normal(), 10**size, (read + dev, texts)).astype(np.float32)
    labels = rng.integers(0, classes, read + dev)
    asked = rng.normal(0, 1, (3, classes, texts + 1))
    learned = slice(None if whole else read)
    sums = readout.sums(columns[learned], labels[learned], asked)
    arrays = {
        "loss": sums.loss,
        "gradient": sums.gradient,
        "moments": sums.moments,
        "dev_loss": readout.losses(columns[read:], labels[read:], asked),
        "dev_weight": np.array([float(dev)]),
    }
    broadcast = {"readouts": asked} | ({"whole": np.ones(1, np.uint8)} if whole else {})
    rules = readout_rounds.rules(broadcast)
    update = Update(travelled(arrays, sums.weight), sums.weight, Measurement(1.0, DEV, 2))
    check_claims(update, Known(read + 2, False, rules, True, 0, DEV))
    for lie in (
        replace(update, weight=update.weight + 3),
        _with(update, "dev_weight", DEV + 1.0),
        _with(update, "dev_weight", 1e30),
        _with(update, "loss", -1.0),
        _with(update, "gradient", 1e4 * 10 ** max(size, 0.0) * (read + dev)),
        _with(update, "moments", -1.0),
    ):
        with pytest.raises(InvalidUpdate):
            check_claims(lie, Known(read + 2, False, rules, True, 0, DEV))


def _with(update: Update, name: str, value: float) -> Update:
    arrays: Mapping[str, np.ndarray] = update.arrays
    return replace(update, arrays={**arrays, name: np.full_like(arrays[name], value)})


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=6), st.data())
def test_no_cross_entropy_is_beyond_the_largest(values: list[float], data: st.DataObject) -> None:
    label = data.draw(st.integers(0, len(values) - 1))
    (loss,) = cross_entropies(np.array([[values]], np.float32), np.array([label]))[0]
    assert 0 <= loss <= MAX_LOSS


def test_each_method_states_the_weight_of_its_updates() -> None:
    assert rules_of(name="fed-bpt").weight is Weight.ONE
    for name in ("fed-cma", "fedavg-bbt", "fed-bbpt"):
        assert rules_of(name=name).weight is Weight.EXAMPLES


def test_a_refused_client_neither_counts_nor_delays_the_others() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "berta", "clara")
    task = bench.task("clara")
    assert task is not None
    with pytest.raises(InvalidUpdate, match="dev_loss_sum"):
        bench.submit("clara", task, dev_loss_sum=1e300)
    bench.answer("anna", "berta")
    assert (bench.round, bench.last.clients, bench.last.dev_examples) == (1, 2, 8)


def test_a_refused_client_may_mend_its_update() -> None:
    bench = Bench(clients=3, quorum=2)
    bench.join("anna", "berta", "clara")
    task = bench.task("clara")
    assert task is not None
    with pytest.raises(InvalidUpdate):
        bench.submit("clara", task, dev_loss_sum=1e300)
    assert bench.submit("clara", task) is Receipt.COUNTED
    bench.answer("anna", "berta")
    assert bench.last.clients == 3


def test_a_client_that_joins_again_may_have_other_dev_examples() -> None:
    bench = Bench(clients=1, quorum=1)
    bench.join("anna")
    bench.answer("anna")
    task = bench.task("anna")
    assert task is not None
    with pytest.raises(InvalidUpdate, match="5; 4, as in the client's measurements before"):
        bench.submit("anna", task, dev_examples=5)
    bench.join("anna")
    bench.answer("anna", dev_examples=5)
