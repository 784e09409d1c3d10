"""fed-readout in a simulated run: the pooled fit, from one pass over the examples."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import InvalidJob, InvalidTensor, OutputWithheld
from fedbbpt.federation.simulation import Simulation, simulate
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job, job_of
from fedbbpt.job.settings import task_spec
from fedbbpt.methods.fed_readout import METHOD, FedReadoutConfig
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.readout_fit import SMALL_RIDGE
from fedbbpt.types import Examples, ExamplesHandle, LabelledExamples, Output, Prompts, Scored
from fedbbpt.types.examples import concatenate
from tests.tenants import ptm_of
from tests.tiny_run import fake_ptm, job, write_data

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

K, V = 2, 6
COLUMNS = ("person", "thing", "money", "city")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def splits_of(
    data: Path, rounds: int, readout: dict[str, Any], views: tuple[str, ...] = ("",), *, refit: bool = False
) -> Splits:
    """Returns examples of two classes: two clients have one class each, and the third has a few of both."""
    sections = job(data, rounds=rounds, method="fed-readout").model_dump()
    sections["method"] |= {"readout": readout, "refit": refit}
    sections["task"] |= {"columns": COLUMNS, "views": views}
    splits = prepare(Job.model_validate(sections))
    pool = splits.pooled()
    rows = np.arange(len(pool))
    few = rows % 5 == 0
    train = tuple(pool.take(rows[chosen]) for chosen in (~few & (pool.labels == 0), ~few & (pool.labels == 1), few))
    return replace(splits, train=train)


def columns(splits: Splits, examples: LabelledExamples, views: int = 1) -> tuple[Floats, Labels]:
    """Returns the columns `[B, m V]` and the labels of examples, from a PTM of their own."""
    space = splits.job.space()
    assert isinstance(space, ReadoutSpace)
    scorer = PromptScorer(fake_ptm(), task_spec(splits.job), space)
    (part,) = [scorer.register(part) for part in scorer.parts(examples)]
    found = scorer.columns(part, np.zeros((1, space.dim)), use_labels=False)[0]
    assert found.shape == (len(examples), views * V)
    return found.astype(np.float64), part.data.labels


def pooled(s: Floats, labels: Labels, ridge: float) -> Floats:
    """Returns the class scores `[B, K]` of a fit's objective, written as a formula and solved by scipy."""
    x = (s - s.mean(axis=0)) / s.std(axis=0)
    own = (s[:, :K] - s[:, :K].mean(axis=0)) / np.sqrt(s[:, :K].var(axis=0).mean())
    penalties = np.append(np.full(K * x.shape[1], ridge), [SMALL_RIDGE] * (K + 1))

    def scores(p: Floats) -> Floats:
        return np.asarray(s[:, :K] + x @ p[: -K - 1].reshape(K, -1).T + p[-K - 1 : -1] + p[-1] * own)

    def objective(p: Floats) -> tuple[float, Floats]:
        off = softmax(scores(p), axis=1) - np.eye(K)[labels]
        by_scores = [(off.T @ x).ravel(), off.sum(axis=0), [(off * own).sum()]]
        value = cross_entropy(scores(p), labels) + (penalties * p**2).sum() / 2
        return value, np.concatenate(by_scores) / len(s) + penalties * p

    start = np.zeros(len(penalties))
    return scores(minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-10}).x)


def cross_entropy(scores: Floats, labels: Labels) -> float:
    return float(-log_softmax(scores, axis=1)[np.arange(len(labels)), labels].mean())


def test_the_run_ends_with_the_pooled_fit_of_an_independent_solver(data: Path) -> None:
    splits = splits_of(data, 60, {"ridges": (0.05,)})
    *_, last = Simulation(splits, fake_ptm()).rounds()
    space = splits.job.space()
    assert isinstance(space, ReadoutSpace)
    s, labels = columns(splits, splits.pooled())
    found = space.shifted(s[None].astype(np.float32), last.z[None])[0].astype(np.float64)
    expected = pooled(s, labels, 0.05)
    assert np.abs(expected - s[:, :K]).max() > 0.5
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(softmax(found, axis=1), softmax(expected, axis=1), atol=1e-6)
    assert cross_entropy(found, labels) == pytest.approx(cross_entropy(expected, labels), abs=1e-6)


def test_a_refit_ends_with_the_pooled_fit_of_training_and_dev_examples(data: Path) -> None:
    splits = splits_of(data, 80, {"ridges": (0.05, 50.0), "rounds": 20}, refit=True)
    *_, last = Simulation(splits, fake_ptm()).rounds()
    space = splits.job.space()
    assert isinstance(space, ReadoutSpace)
    parts = [columns(splits, part) for part in (splits.pooled(), concatenate(splits.dev))]
    s, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    found = space.shifted(s[None].astype(np.float32), last.z[None])[0].astype(np.float64)
    np.testing.assert_allclose(found, pooled(s, labels, 0.05), atol=1e-5)


@pytest.mark.parametrize("refit", [False, True])
def test_no_query_follows_the_first_pass(data: Path, refit: bool) -> None:
    splits = splits_of(data, 8, {"rounds": 4}, views=("", "In short:"), refit=refit)
    ptm = fake_ptm()
    examples = sum(len(part) for part in (*splits.train, *splits.dev))
    usage = []
    for _ in Simulation(splits, ptm).rounds():
        usage.append(ptm.usage().queries)
    assert len(usage) == 9
    assert set(usage) == {usage[0]} and 0 < usage[0] <= 2 * examples


def test_the_ridge_is_the_one_with_the_lowest_dev_loss(data: Path) -> None:
    ridges = (1e-4, 0.05, 100.0)
    splits = splits_of(data, 40, {"ridges": ridges})
    dev = concatenate(splits.dev)
    s, labels = columns(splits, dev)
    *_, last = Simulation(splits, fake_ptm()).rounds()
    space = splits.job.space()
    assert isinstance(space, ReadoutSpace)
    chosen = cross_entropy(space.shifted(s[None].astype(np.float32), last.z[None])[0].astype(np.float64), labels)
    alone = [dev_loss_of(splits_of(data, 40, {"ridges": (ridge,)})) for ridge in ridges]
    assert chosen == pytest.approx(min(alone), abs=1e-3)
    assert max(alone) > min(alone) + 0.05


class Broken(LocalPtm):
    """A PTM that gives NaN for some texts."""

    def __init__(self, texts: set[str]) -> None:
        plain = fake_ptm()
        super().__init__(plain.engine, plain.tenant)
        self._texts = texts
        self._broken: dict[str, list[bool]] = {}

    def register_examples(self, task_id: str, examples: Examples, *others: Any) -> ExamplesHandle:
        handle = super().register_examples(task_id, examples, *others)
        self._broken[handle.id] = [text in self._texts for text in examples.texts]
        return handle

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        scored = super().score(examples_id, prompts)
        return replace(scored, answer=np.where(np.array(self._broken[examples_id])[:, None], np.nan, scored.answer))


def test_training_examples_without_finite_scores_are_as_if_they_were_absent(data: Path) -> None:
    """Kills: an update whose weight counts examples that its sums leave out."""
    splits = splits_of(data, 6, {})
    broken = {text for part in splits.train for text in part.examples.texts[::3]}
    # Dev examples are measured, so that theirs must be finite.
    dev = tuple(keep(part, broken) for part in splits.dev)
    here = simulate(replace(splits, dev=dev), Broken(broken))[1]
    without = simulate(replace(splits, train=tuple(keep(part, broken) for part in splits.train), dev=dev), fake_ptm())[
        1
    ]
    figures = [[(report.train_loss, report.dev_loss) for report in reports] for reports in (here, without)]
    assert figures[0][:-1] == [pytest.approx(pair, rel=1e-6) for pair in figures[1][:-1]]


def keep(examples: LabelledExamples, broken: set[str]) -> LabelledExamples:
    return examples.take(np.array([row for row, text in enumerate(examples.examples.texts) if text not in broken]))


def test_a_client_without_any_finite_scores_is_told_so(data: Path) -> None:
    splits = splits_of(data, 3, {})
    broken = {text for text in splits.train[0].examples.texts}
    splits = replace(splits, dev=tuple(keep(part, broken) for part in splits.dev))
    with pytest.raises(InvalidTensor, match=r"none of the \d+ training examples has scores that are all finite"):
        simulate(splits, Broken(broken))


def dev_loss_of(splits: Splits) -> float:
    found = simulate(splits, fake_ptm())[0].measured.dev_loss
    assert found is not None
    return found


@pytest.mark.parametrize("output", [Output.LABEL_ARGMAX, Output.LOSS_ONLY])
def test_a_model_without_scores_is_refused_before_the_first_query(data: Path, output: Output) -> None:
    ptm = ptm_of(Fake(), output=output, min_examples=2)
    with pytest.raises(OutputWithheld, match=f"gives {output}, and not the scores that"):
        Simulation(splits_of(data, 3, {}), ptm)
    assert ptm.usage().queries == 0


def test_a_space_without_a_readout_is_refused() -> None:
    with pytest.raises(InvalidJob, match=r"task\.views: fed-readout has nothing to fit"):
        METHOD.server(FedReadoutConfig(), Job().space())


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        (
            {"method": {"name": "fed-readout"}, "codec": {"uplink": "float16"}},
            r'codec.uplink: the sums that a readout is fitted from need more digits; "float32"',
        ),
        (
            {"method": {"name": "fed-sp"}, "task": {"views": [""]}},
            r"task.views: clients of fed-sp train a model of their own, which has no readout",
        ),
        (
            {"run": {"rounds": 40}, "task": {"views": [""]}},
            r"run.rounds: the readout may be fitted for 40 rounds before the search begins; more than 40",
        ),
        (
            {"method": {"name": "fed-cma", "readout": {"rounds": 4}}},
            r"method.readout: the task has no readout",
        ),
        (
            {"method": {"name": "fed-readout"}, "task": {"prompt": {"kind": "latent"}}},
            r'task.prompt.kind: fed-readout does not search for "latent" prompts',
        ),
        (
            {"method": {"name": "fed-cma"}, "task": {"prompt": {"kind": "none"}}},
            r'task.prompt.kind: fed-cma does not search for "none" prompts',
        ),
    ],
    ids=["codec", "white box", "rounds", "no readout", "a prompt", "no prompt"],
)
def test_what_a_readout_does_not_go_with_is_refused(sections: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidJob, match=what):
        job_of(sections, "", "job.toml")
