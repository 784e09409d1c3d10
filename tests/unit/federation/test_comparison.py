"""The measurements of a run's result and its baselines, and the queries that they cost."""

from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.client.asking import PromptScorer
from fedbbpt.errors import OutputWithheld
from fedbbpt.federation.comparison import Data, compare, cost
from fedbbpt.federation.evaluation import Measured
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.tasks.readout_fit import fit_readout
from fedbbpt.types import LabelledExamples, Output, TaskSpec
from tests.tenants import ptm_of
from tests.unit.federation.test_evaluation import SPACE, TASK, Z, examples, fake_ptm

DATA = Data(train=examples(8), dev=examples(6, first=50), test=examples(20, first=100))
WIDE = TaskSpec(TASK.template, (*TASK.classes, "number of hours", "a long story"))


def test_compare_costs_the_queries_that_the_service_counts() -> None:
    ptm, data, test = fake_ptm(), DATA, DATA.test
    told: list[int] = []
    compared = compare(ptm, TASK, SPACE, Z, data, progress=told.append)
    assert compared.queries == sum(told) == ptm.usage().queries == cost(SPACE, data) == 3 * 20 + 8
    plain, prompted = PromptScorer(ptm, TASK, NoPrompt(SPACE.prompt_tokens)), PromptScorer(ptm, TASK, SPACE)
    assert compared.without == Measured.of_scores(plain.scores(test, NoPrompt.Z), test)
    assert compared.start is not None
    assert compared.tuned == Measured.of_scores(prompted.scores(test, Z[None]), test)
    # Without an initial text, z = 0 is the zero vector, which does not change the scores of the fake model.
    assert compared.start.loss == pytest.approx(compared.without.loss, rel=1e-5)


def test_offset_baseline_sees_no_test_label() -> None:
    """The offsets are fitted on the training examples, so exchanging the test labels must not change them."""
    turned = replace(DATA, test=LabelledExamples(DATA.test.examples, 1 - DATA.test.labels))
    straight, other = (compare(fake_ptm(), TASK, SPACE, Z, data).offsets for data in (DATA, turned))
    assert straight is not None and other is not None and other.accuracy is not None
    assert straight.accuracy == pytest.approx(1 - other.accuracy)


@pytest.mark.parametrize("output", [Output.LABEL_ARGMAX, Output.LOSS_ONLY])
def test_compare_leaves_out_measures_that_need_scores(output: Output) -> None:
    ptm = ptm_of(Fake(), output=output)
    whole, found = (compare(one, TASK, SPACE, Z, DATA) for one in (fake_ptm(), ptm))
    assert found.offsets is None and found.queries == ptm.usage().queries == 3 * 20
    for name in ("without", "start", "tuned"):
        right, measure = getattr(whole, name), getattr(found, name)
        if output is Output.LOSS_ONLY:
            assert measure.accuracy is None and measure.loss == pytest.approx(right.loss, rel=1e-6)
        else:
            assert measure.accuracy == right.accuracy and measure.loss is None
    with pytest.raises(OutputWithheld, match=f"the PTM gives {output}"):
        PromptScorer(ptm, TASK, SPACE).scores(DATA.test, Z[None])


def read_out(views: tuple[str, ...] = ("",)) -> ReadoutSpace:
    return ReadoutSpace(SPACE, views, 0, classes=2, columns=4)


def z_of(space: ReadoutSpace, seed: int = 0) -> np.ndarray:
    readout = np.random.default_rng(seed).normal(size=(space.classes, space.width + 1))
    return space.join(Z[: space.prompt.dim], readout)


def test_a_run_with_a_readout_is_compared_with_each_of_its_parts() -> None:
    space, told, ptm = read_out(), list[int](), fake_ptm()
    z = z_of(space)
    found = compare(ptm, WIDE, space, z, DATA, progress=told.append)
    assert found.queries == sum(told) == ptm.usage().queries == cost(space, DATA)
    assert found.queries == (8 + 6 + 20) + (8 + 20) + 20, "views, tuned prompt, start"
    without = compare(fake_ptm(), TASK, SPACE, Z, DATA)
    for part in ("without", "offsets", "start"):
        left, right = getattr(found, part), getattr(without, part)
        assert left.accuracy == right.accuracy and left.loss == pytest.approx(right.loss, rel=1e-6), part
    assert found.prompt is not None
    result = PromptScorer(fake_ptm(), WIDE, space)
    assert found.tuned == Measured.of(result.judge(DATA.test, z[None]))


@pytest.mark.parametrize("views", [("",), ("", "parking parking")])
def test_the_readout_alone_is_the_fit_of_all_examples_in_one_place(views: tuple[str, ...]) -> None:
    """Kills: a fit that takes the columns under several views for those of one, which has a single temperature."""
    space = read_out(views=views)
    found = compare(fake_ptm(), WIDE, space, z_of(space), DATA, ridges=(0.01, 1.0)).readout
    asked = [PromptScorer(fake_ptm(), WIDE, TextSpace(1, (view,), space.prompt_tokens)) for view in views]
    zero = np.zeros((1, 1), np.float32)
    train, dev, test = (
        np.concatenate([scorer.scores(part, zero)[0] for scorer in asked], axis=1)
        for part in (DATA.train, DATA.dev, DATA.test)
    )
    labels = DATA.train.labels, DATA.dev.labels
    readout, _ = fit_readout(train, labels[0], dev, labels[1], 2, (0.01, 1.0), prompts=len(views), refit=False)
    scores = test[:, :2] + test @ readout[:, :-1].T + readout[:, -1]
    right = Measured.of_scores(scores[None].astype(np.float32), DATA.test)
    assert found is not None and found.accuracy == right.accuracy
    assert found.loss == pytest.approx(right.loss, rel=1e-5)


def test_a_readout_without_a_search_has_no_prompt_to_compare_with() -> None:
    space = ReadoutSpace(NoPrompt(), ("",), 0, classes=2, columns=4)
    ptm = fake_ptm()
    found = compare(ptm, WIDE, space, z_of(space), DATA)
    assert (found.start, found.prompt) == (None, None)
    assert found.queries == ptm.usage().queries == cost(space, DATA) == 8 + 6 + 20
    assert list(found.controls) == ["no prompt", "offsets"]


def test_views_do_not_take_the_place_of_no_prompt() -> None:
    """Kills: a baseline without a prompt that is measured under the first view."""
    space, ptm = read_out(views=("parking parking",)), fake_ptm()
    found = compare(ptm, WIDE, space, z_of(space), DATA)
    assert found.queries == ptm.usage().queries == cost(space, DATA)
    assert found.without == compare(fake_ptm(), TASK, SPACE, Z, DATA).without


def test_a_result_whose_readout_uses_no_prompt_is_measured_as_it_predicts() -> None:
    space = read_out()
    z = z_of(space)
    readout = space.readouts(z[None])[0].copy()
    readout[:, 4:-1] = 0.0
    z = space.join(z[: space.prompt.dim], readout)
    found = compare(fake_ptm(), WIDE, space, z, DATA)
    assert found.tuned == Measured.of(PromptScorer(fake_ptm(), WIDE, space).judge(DATA.test, z[None]))


def test_a_prompt_that_the_search_has_not_moved_is_asked_once() -> None:
    space, ptm = read_out(), fake_ptm()
    found = compare(ptm, WIDE, space, np.zeros(space.dim, np.float32), DATA)
    assert found.queries == ptm.usage().queries == cost(space, DATA) - 20
    assert found.start is not None and found.tuned.accuracy == found.without.accuracy
