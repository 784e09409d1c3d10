"""The federated fit of a readout is that of an independent solver on all examples in one place."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize

from fedbbpt.tasks import readout, readout_fit
from fedbbpt.tasks.offsets import fit_offsets
from fedbbpt.tasks.readout_fit import SMALL_RIDGE, ReadoutFit
from fedbbpt.types import pack, unpack

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

K, C = 4, 12
UNITS = np.geomspace(0.01, 100.0, C)
"""The columns' scales, far from each other, as those of different texts may be."""


def examples(seed: int, count: int = 160) -> tuple[Floats, Labels]:
    """Columns that tell something about the class, with a mean far from 0."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(K, size=count)
    latent = np.eye(K)[labels] @ np.random.default_rng(99).normal(size=(K, C)) + 1.5 * draw.normal(size=(count, C))
    return latent * UNITS + 3 * UNITS, labels


def clients(columns: Floats, labels: Labels) -> list[tuple[Floats, Labels]]:
    """One client for each class alone, so that each misses all others, and one without class 0."""
    mixed = np.arange(len(labels)) % 4 == 0
    parts = [~mixed & (labels == label) for label in range(K)] + [mixed & (labels > 0), mixed & (labels == 0)]
    return [(columns[rows], labels[rows]) for rows in parts]


def federated(parts: list[tuple[Floats, Labels]], fit: ReadoutFit, evaluations: int = 120) -> ReadoutFit:
    for _ in range(evaluations):
        asked = readout_fit.readouts(fit)
        told = [readout.sums(columns, labels, asked) for columns, labels in parts]
        fit = readout_fit.tell(fit, sum(told[1:], told[0]))
    return fit


def pooled(columns: Floats, labels: Labels, ridge: float, prompts: int = 1) -> Floats:
    """The same objective, written as a formula in D~, b~ and a~ and solved by scipy; the readout `[K, C + 1]`."""
    mean, scale = columns.mean(axis=0), columns.std(axis=0)
    texts = columns.shape[1] // prompts
    picks = np.stack([np.eye(K, columns.shape[1], m * texts) for m in range(prompts)])  # W_1 to W_M
    own_scales = np.array([np.sqrt((scale[m * texts : m * texts + K] ** 2).mean()) for m in range(prompts)])
    own = np.einsum("mkc,bc->mbk", picks, columns - mean) / own_scales[:, None, None]
    standardised = (columns - mean) / scale
    width = columns.shape[1]

    def unfold(x: Floats) -> tuple[Floats, Floats, Floats]:
        return x[: K * width].reshape(K, width), x[K * width : -prompts], x[-prompts:]

    def objective(x: Floats) -> tuple[float, Floats]:
        d, b, a = unfold(x)
        logits = columns[:, :K] + standardised @ d.T + b + np.einsum("m,mbk->bk", a, own)
        logits -= logits.max(axis=1, keepdims=True)
        p = np.exp(logits)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(len(labels)), labels]).mean()
        off = (p - np.eye(K)[labels]) / len(labels)
        value = loss + ridge / 2 * (d**2).sum() + SMALL_RIDGE / 2 * ((b**2).sum() + (a**2).sum())
        by_d, by_b = off.T @ standardised + ridge * d, off.sum(axis=0) + SMALL_RIDGE * b
        return value, np.concatenate([by_d.ravel(), by_b, np.einsum("bk,mbk->m", off, own) + SMALL_RIDGE * a])

    start = np.zeros(K * (width + 1) + prompts)
    solved = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-10, "maxiter": 5000})
    d, b, a = unfold(solved.x)
    raw = d / scale
    raw += np.einsum("m,mkc->kc", a / own_scales, picks)
    return np.concatenate([raw, (b - raw @ mean)[:, None]], axis=1)


@pytest.mark.parametrize("prompts", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_the_fit_over_skewed_clients_equals_the_pooled_one(seed: int, prompts: int) -> None:
    columns, labels = examples(seed)
    ridges = (1e-2, 1e-1, 1.0)
    fit = federated(clients(columns, labels), readout_fit.init(ridges, K, C // prompts, prompts))
    for found, ridge in zip(readout_fit.accepted(fit), ridges, strict=True):
        expected = pooled(columns, labels, ridge, prompts)
        np.testing.assert_allclose(found[:, :C] * UNITS, expected[:, :C] * UNITS, atol=1e-6)
        np.testing.assert_allclose(
            readout.scores(columns, found[None]), readout.scores(columns, expected[None]), atol=1e-6
        )


def test_a_refit_is_the_pooled_fit_of_all_examples_with_the_chosen_ridge() -> None:
    """Kills: a refit with every ridge, of the training examples only, or from the readout of another ridge."""
    columns, labels = examples(5)
    train, dev = (columns[:100], labels[:100]), (columns[100:], labels[100:])
    found, ridge = readout_fit.fit_readout(*train, *dev, K, (1e-3, 0.1, 10.0), prompts=1, refit=True, evaluations=150)
    chosen, same = readout_fit.fit_readout(*train, *dev, K, (1e-3, 0.1, 10.0), prompts=1, refit=False)
    assert ridge == same == 0.1
    expected = pooled(columns, labels, ridge)
    np.testing.assert_allclose(found[:, :C] * UNITS, expected[:, :C] * UNITS, atol=1e-6)
    assert np.abs((found - chosen)[:, :C] * UNITS).max() > 1e-2
    fit = federated(clients(*train), readout_fit.init((0.1, 1.0), K, C), 30)
    start = readout_fit.refitted(fit)
    np.testing.assert_allclose(readout_fit.readouts(start)[0], readout_fit.accepted(fit)[readout_fit.best(fit)])


def test_a_fit_goes_on_where_another_one_of_fewer_columns_ended() -> None:
    """Kills: a start at 0, a start that other moments of the columns move, a step before the first sums."""
    columns, labels = examples(3)
    before = federated(clients(columns[:, :8], labels), readout_fit.init((0.1, 1.0), K, 4, 2), 30)
    before = replace(before, dev_loss=np.array([0.9, 0.8]), dev_weight=5.0)
    moved = 0.7 * columns + 2.0 * UNITS * np.random.default_rng(0).normal(size=columns.shape) + UNITS
    fit = readout_fit.restarted(before, C)
    start = readout_fit.accepted(before)
    for _ in range(2):
        assert readout_fit.best(fit) == 1
        for question in (readout_fit.readouts(fit), readout_fit.accepted(fit)):
            scores = readout.scores(moved, question)
            np.testing.assert_allclose(scores, readout.scores(moved[:, :8], start), rtol=1e-9)
        fit = readout_fit._standardised(fit, readout.sums(moved, labels, readout_fit.readouts(fit)))
    fit = federated(clients(moved, labels), readout_fit.restarted(before, C))
    found = readout_fit.accepted(fit)[0]
    np.testing.assert_allclose(found[:, :C] * UNITS, pooled(moved, labels, 0.1, 3)[:, :C] * UNITS, atol=1e-6)


@pytest.mark.parametrize("ridge", [1e9, np.inf])
def test_a_huge_ridge_leaves_offsets_and_a_temperature(ridge: float) -> None:
    columns, labels = examples(4)
    found = readout_fit.accepted(federated([(columns, labels)], readout_fit.init((ridge,), K, C)))[0]
    temperature = float(1 + found[0, 0])
    np.testing.assert_allclose(found[:, :C], (temperature - 1) * np.eye(K, C), atol=1e-6)
    expected = fit_offsets(temperature * columns[:, :K], labels, 1e-9)
    np.testing.assert_allclose(found[:, C] - found[:, C].mean(), expected, atol=0.02)


def test_the_first_question_is_the_readout_zero() -> None:
    fit = readout_fit.init((0.1, 1.0), K, C)
    np.testing.assert_array_equal(readout_fit.readouts(fit), np.zeros((2, K, C + 1)))
    assert readout_fit.readouts(fit).shape == (2, K, C + 1)


def test_a_column_with_one_value_has_no_part_in_the_readout() -> None:
    columns, labels = examples(5)
    columns[:, 7] = 0.1 + 0.2
    fit = federated(clients(columns, labels), readout_fit.init((0.1,), K, C), 30)
    assert np.abs(readout_fit.accepted(fit)[:, :, 7]).max() < 1e-6
    assert fit.search.loss[0] < 1.0


def test_readouts_and_gradients_survive_the_change_of_columns() -> None:
    """The derivative along a step of the search's variables is that along the readouts' change."""
    columns, labels = examples(6)
    fit = federated([(columns, labels)], readout_fit.init((0.1,), K, C), 5)
    told = readout.sums(columns, labels, readout_fit.readouts(fit))
    step = 1e-6 * np.random.default_rng(0).normal(size=fit.search.point.shape)
    moved = replace(fit, search=replace(fit.search, point=fit.search.point + step))
    change = readout_fit.readouts(moved) - readout_fit.readouts(fit)
    by_variables = readout_fit._units(fit) * readout_fit._standardised_gradient(fit, told.gradient)
    np.testing.assert_allclose((by_variables * step).sum(), (told.gradient * change).sum(), rtol=1e-6)


def test_dev_examples_choose_the_ridge() -> None:
    columns, labels = examples(7, 24)
    dev = examples(8, 500)
    found, ridge = readout_fit.fit_readout(columns, labels, *dev, K, prompts=1, refit=False)
    assert 0.01 < ridge < 10.0
    others = [
        readout_fit.fit_readout(columns, labels, *dev, K, (other,), prompts=1, refit=False)[0]
        for other in readout_fit.RIDGES
    ]
    dev_losses = readout.losses(*dev, np.array(others))
    np.testing.assert_allclose(readout.losses(*dev, found[None])[0], dev_losses.min(), rtol=1e-6)


def test_a_fit_without_dev_examples_takes_a_middle_ridge() -> None:
    columns, labels = examples(9)
    _, ridge = readout_fit.fit_readout(
        columns, labels, columns[:0], labels[:0], K, (1e-3, 0.2, 10.0), prompts=1, refit=False
    )
    assert ridge == 0.2


def test_scores_that_are_only_too_close_together_do_not_call_for_columns() -> None:
    """All that the columns beyond the classes' own hold is noise, and the classes' scores are ten times too small."""
    draw = np.random.default_rng(3)
    labels = draw.integers(K, size=400)
    own = 0.3 * (np.eye(K)[labels] + 0.5 * draw.normal(size=(400, K)))
    columns = np.concatenate([own, draw.normal(size=(400, 30))], axis=1)
    _, ridge = readout_fit.fit_readout(columns[:64], labels[:64], columns[64:], labels[64:], K, prompts=1, refit=False)
    assert ridge >= 1.0


def test_a_class_that_no_client_has_gets_finite_scores() -> None:
    columns, labels = examples(10)
    rows = labels != 2
    fit = federated([(columns[rows], labels[rows])], readout_fit.init((1e-3, 1.0), K, C))
    assert np.isfinite(readout_fit.accepted(fit)).all()
    assert np.abs(readout.scores(columns, readout_fit.accepted(fit))).max() < 1000
    assert not (readout.scores(columns, readout_fit.accepted(fit)).argmax(axis=2) == 2).any()


def test_a_fit_can_be_stored_between_two_rounds() -> None:
    columns, labels = examples(11)
    fit = federated([(columns, labels)], readout_fit.init((0.1, 1.0), K, C), 6)
    restored = unpack(ReadoutFit, pack(fit))
    a, b = (federated([(columns, labels)], each, 3) for each in (fit, restored))
    np.testing.assert_array_equal(readout_fit.readouts(a), readout_fit.readouts(b))


def test_the_search_survives_clients_that_drop_out() -> None:
    columns, labels = examples(12, 400)
    parts = [(columns[start::10], labels[start::10]) for start in range(10)]
    draw, fit = np.random.default_rng(0), readout_fit.init((0.03,), K, C)
    for _ in range(60):
        fit = federated([parts[index] for index in draw.permutation(10)[:7]], fit, 1)
    expected = readout.losses(columns, labels, pooled(columns, labels, 0.03)[None]) / 400
    found = readout.losses(columns, labels, readout_fit.accepted(fit)) / 400
    assert found[0] < expected[0] + 0.05
