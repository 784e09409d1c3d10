"""Fits readouts by L2-regularised multinomial regression, from sums over examples that never leave their clients.

For each of R penalties, the fit minimises

    mean cross-entropy + ridge / 2 |D~|^2 + SMALL_RIDGE / 2 (|b~|^2 + |a~|^2)

over D~ `[K, C]`, b~ `[K]` and a~ `[M]`. D~ and b~ are the readout of columns that are standardised to mean 0 and
variance 1. The C columns are the scores of V texts under each of M prompts, and a~ scales the classes' own scores under
each of them, as a temperature does: D is the sum of D~ and of a~_1 W_1 to a~_M W_M, where W_m picks the classes' own
scores under prompt m. So a large ridge draws the result to offsets and a weighted sum of the prompts' own answers, not
to nothing.

The temperatures are almost free, for two reasons. Dev examples choose the ridge by their loss: without a temperature,
they choose a small one whenever the PTM's scores are too close together, although one number can mend that and the
columns may tell nothing. And M numbers are enough to weigh the answers under M prompts, where K M V would overfit.

The objective is convex and the sums are exact, so the result is that of all examples in one place, whatever the label
skew. Clients do not know the standardisation: they get readouts of their own columns. The first sums, those of the
readout 0, hold the moments that it is computed from. Then each `tell` is one evaluation of L-BFGS. About 30 give the
accuracy of the minimum, and 100 to 150 its digits.

Once the dev examples have chosen the ridge, they can be learned from as well: `refitted` goes on with that ridge alone,
for sums over the training and dev examples together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fedbbpt.optim import lbfgs
from fedbbpt.optim.lbfgs import LbfgsState
from fedbbpt.tasks.criterion import Labels
from fedbbpt.tasks.readout import Floats, losses, sums
from fedbbpt.types import ReadoutSums

RIDGES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)
"""The default penalties. The best were, on training examples of four tasks with MiniLM, 0.3 to 10 for 16 examples per
class, 0.03 to 1 for 64, and 0.01 to 0.1 for 2,000 in all."""
FALLBACK_RIDGE = 0.3
"""The penalty without dev examples, or the nearest to it in the list."""
SMALL_RIDGE = 1e-3
"""Keeps the offset of a class without examples finite, and the temperature where the scores separate all examples."""
CONSTANT = 1e-10
"""A column whose variance is a smaller share of its mean square has one value, up to rounding. It is not used."""
STEP, MOMENTUM = 4.0, 0.5
"""For the descent along noisy gradients: the length of a step times the square of the clip norm, and the share of
the last move in the next. The best of 1 to 8 and 0 to 0.9 on dev examples of TREC and AG's News with MiniLM."""
CURVATURE = 0.1
"""The typical second derivative of the cross-entropy. It makes the search's variables alike, whatever the ridge."""


@dataclass(frozen=True, slots=True)
class ReadoutFit:
    """The state of R fits of a readout with K classes and C columns."""

    ridges: Floats
    """The penalties, `[R]`."""
    whole: bool
    """Whether the sums are those of the training and dev examples together, with the ridge that was chosen before."""
    standardised: bool
    """Whether `mean` and `scale` are those of the columns that the fit evaluates; false before its first sums."""
    texts: int
    """V, the number of columns under one prompt."""
    mean: Floats
    """The mean of each column over the training examples, `[C]`."""
    scale: Floats
    """The standard deviation of each column, `[C]`; 1 for a column with a single value."""
    search: LbfgsState
    """The searches, n = K (C + 1) + M: D~ with b~ as its last column, and a~, divided by `_units`."""
    dev_loss: Floats
    """The mean loss of the accepted readouts over the dev examples, `[R]`; 0 before it is known."""
    dev_weight: float
    """The number of dev examples in the last sums."""


def init(ridges: Sequence[float], classes: int, texts: int, prompts: int = 1) -> ReadoutFit:
    """Returns the fits before the first evaluation, which is that of the readout 0.

    Args:
        ridges: The penalties, positive; infinity keeps D~ at 0.
        classes: K.
        texts: V, the number of columns under one prompt. The first K are the classes' own.
        prompts: M. There are C = M V columns.
    """
    columns = prompts * texts
    start = np.zeros((len(ridges), classes * (columns + 1) + prompts))
    return ReadoutFit(
        ridges=np.array(ridges, np.float64),
        whole=False,
        standardised=False,
        texts=texts,
        mean=np.zeros(columns),
        scale=np.ones(columns),
        search=lbfgs.init(start),
        dev_loss=np.zeros(len(ridges)),
        dev_weight=0.0,
    )


def restarted(fit: ReadoutFit, columns: int) -> ReadoutFit:
    """Returns new fits that begin with the accepted readouts, for columns whose scores have changed.

    Until the first sums of the new fits, `best` is that of the fits before.

    Args:
        fit: The fits before.
        columns: C, at least as many as before, and a multiple of V. Further columns follow those before, and begin with
            zeros.
    """
    more = columns - len(fit.mean)
    matrix, temperatures = _parts(fit)
    temperatures = np.pad(temperatures, ((0, 0), (0, more // fit.texts)))
    wider = np.insert(matrix, [len(fit.mean)] * more, 0.0, axis=2)
    mean, scale = np.pad(fit.mean, (0, more)), np.pad(fit.scale, (0, more), constant_values=1.0)
    return _moved(replace(fit, standardised=False, mean=mean, scale=scale), wider, temperatures)


def refitted(fit: ReadoutFit) -> ReadoutFit:
    """Returns a new fit with the ridge that the dev examples chose, for sums over the training and dev examples.

    It begins with the readout of that ridge, and its dev losses are those of examples that it learns from.
    """
    chosen = slice(index := best(fit), index + 1)
    matrix, temperatures = _parts(fit)
    one = replace(fit, ridges=fit.ridges[chosen], dev_loss=fit.dev_loss[chosen], whole=True, standardised=False)
    return _moved(one, matrix[chosen], temperatures[chosen])


def readouts(fit: ReadoutFit) -> Floats:
    """Returns the readouts `[R, K, C + 1]` to evaluate next."""
    return _readouts(fit, lbfgs.asked(fit.search))


def accepted(fit: ReadoutFit) -> Floats:
    """Returns the best readouts so far, `[R, K, C + 1]`."""
    return _readouts(fit, fit.search.point)


def best(fit: ReadoutFit) -> int:
    """Returns the index of the ridge whose accepted readout has the lowest dev loss, the largest ridge among equals."""
    if not fit.dev_weight:
        return int(np.abs(np.log(fit.ridges / FALLBACK_RIDGE)).argmin())
    return int(max(np.flatnonzero(fit.dev_loss == fit.dev_loss.min()), key=lambda index: fit.ridges[index]))


def tell(fit: ReadoutFit, told: ReadoutSums) -> ReadoutFit:
    """Returns the fits after an evaluation of `readouts(fit)`, from the sums over all examples that were evaluated."""
    if not fit.standardised:
        fit = _standardised(fit, told)
    point = lbfgs.asked(fit.search)
    shares = _shares(fit)
    loss = told.loss / told.weight + (shares * point**2).sum(axis=1) / 2
    gradient = _units(fit) * _standardised_gradient(fit, told.gradient / told.weight) + shares * point
    search = lbfgs.tell(fit.search, loss, gradient)
    dev_loss = fit.dev_loss
    if told.dev_weight:
        dev_loss = np.where(search.failures == 0, told.dev_loss / told.dev_weight, dev_loss)
    return replace(fit, search=search, dev_loss=dev_loss, dev_weight=told.dev_weight)


def descended(
    fit: ReadoutFit, gradient: Floats, clip_norm: float, *, length: float = STEP, momentum: float = MOMENTUM
) -> ReadoutFit:
    """Returns the fits after a step against a mean gradient with noise, with momentum.

    The noise hides the losses and the differences of gradients that L-BFGS needs. The columns are used as they are,
    since their moments would have to be released with noise as well. What each example, or client, adds to the gradient
    is no longer than `clip_norm`, and the second derivatives of a loss are about the square of its gradient. So the
    step is in proportion to the inverse of that square.

    Args:
        fit: The fits before.
        gradient: The mean of the clipped gradients at `readouts(fit)`, with noise, `[R, K, C + 1]`.
        clip_norm: The norm that they were clipped to.
        length: The length of a step times the square of the clip norm.
        momentum: The share of the last move in the next.
    """
    search, units = fit.search, _units(fit)
    point = lbfgs.asked(search)
    slope = _standardised_gradient(fit, gradient) + _penalties(fit) * units * point
    move = momentum * search.step[:, None] * search.direction - length / clip_norm**2 * slope / units
    unknown = np.ones_like(search.failures)  # whether the point is better than the last
    moved = replace(search, point=point, direction=move, step=np.ones_like(search.step), failures=unknown)
    return replace(fit, search=moved)


def fit_readout(
    columns: npt.NDArray[np.floating],
    labels: Labels,
    dev_columns: npt.NDArray[np.floating],
    dev_labels: Labels,
    classes: int,
    ridges: Sequence[float] = RIDGES,
    *,
    prompts: int,
    refit: bool,
    evaluations: int = 60,
) -> tuple[Floats, float]:
    """Returns the readout `[K, C + 1]` of examples in one place, and the ridge that the dev examples choose.

    Args:
        columns: The column scores of the training examples, `[B, C]`.
        labels: Their classes `[B]`.
        dev_columns: The column scores of the dev examples. There may be none; then the ridge is FALLBACK_RIDGE.
        dev_labels: Their classes.
        classes: K.
        ridges: The penalties to choose from.
        prompts: M, the number of prompts that the columns are of.
        refit: Whether the readout is fitted with that ridge to the training and dev examples together.
        evaluations: The number of evaluations of the loss in each fit.
    """
    fit = init(ridges, classes, columns.shape[1] // prompts, prompts)
    for _ in range(evaluations):
        asked = readouts(fit)
        dev_loss, dev_weight = losses(dev_columns, dev_labels, asked), float(len(dev_labels))
        fit = tell(fit, replace(sums(columns, labels, asked), dev_loss=dev_loss, dev_weight=dev_weight))
    if refit:
        fit = refitted(fit)
        every, every_label = np.concatenate([columns, dev_columns]), np.concatenate([labels, dev_labels])
        for _ in range(evaluations):
            fit = tell(fit, sums(every, every_label, readouts(fit)))
    index = best(fit)
    return accepted(fit)[index], float(fit.ridges[index])


def _standardised(fit: ReadoutFit, told: ReadoutSums) -> ReadoutFit:
    """Returns the fits with the mean and the scale of each column, at the same readouts."""
    mean, square = told.moments / told.weight
    variance = square - mean**2
    varies = variance > CONSTANT * square
    found = replace(fit, standardised=True, mean=mean, scale=np.sqrt(np.where(varies, variance, 1.0)))
    matrix, temperatures = _parts(fit)
    d = accepted(fit)[:, :, :-1]
    matrix[:, :, -1] += d @ (mean - fit.mean)
    matrix[:, :, :-1] *= found.scale / fit.scale
    classes = d.shape[1]
    return _moved(found, matrix, temperatures * _own_scales(found, classes) / _own_scales(fit, classes))


def _parts(fit: ReadoutFit) -> tuple[Floats, Floats]:
    """Returns D~ and b~ `[R, K, C + 1]` and a~ `[R, M]` of the accepted readouts."""
    return _split(fit, fit.search.point)


def _split(fit: ReadoutFit, point: Floats) -> tuple[Floats, Floats]:
    """Returns D~ and b~ `[R, K, C + 1]` and a~ `[R, M]` of points `[R, n]` of the searches."""
    x, prompts = point * _units(fit), len(fit.mean) // fit.texts
    return x[:, :-prompts].reshape(len(x), -1, len(fit.mean) + 1), x[:, -prompts:]


def _moved(fit: ReadoutFit, matrix: Floats, temperatures: Floats) -> ReadoutFit:
    """Returns new fits that begin at these D~, b~ and a~."""
    x = np.concatenate([matrix.reshape(len(matrix), -1), temperatures], axis=1)
    fit = replace(fit, search=lbfgs.init(x))
    units = _units(fit)
    return replace(fit, search=lbfgs.init(np.divide(x, units, out=np.zeros_like(x), where=units > 0)))


def _readouts(fit: ReadoutFit, point: Floats) -> Floats:
    """Returns the readouts `[R, K, C + 1]` of points `[R, n]` of the searches."""
    matrix, temperatures = _split(fit, point)
    d = matrix[:, :, :-1] / fit.scale
    classes, own = _own(fit, d.shape[1])
    d[:, classes, own] += (temperatures / _own_scales(fit, len(classes)))[:, :, None]
    return np.concatenate([d, matrix[:, :, -1:] - (d @ fit.mean)[:, :, None]], axis=2)


def _standardised_gradient(fit: ReadoutFit, gradient: Floats) -> Floats:
    """Returns the derivatives `[R, n]` by D~, b~ and a~ from those by D and b `[R, K, C + 1]`."""
    by_offsets = gradient[:, :, -1:]
    centred = gradient[:, :, :-1] - by_offsets * fit.mean
    classes, own = _own(fit, gradient.shape[1])
    by_temperatures = centred[:, classes, own].sum(axis=2) / _own_scales(fit, len(classes))
    by_matrix = centred / fit.scale
    flat = np.concatenate([by_matrix, by_offsets], axis=2).reshape(len(gradient), -1)
    return np.concatenate([flat, by_temperatures], axis=1)


def _own(fit: ReadoutFit, classes: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns the classes `[K]`, and their own columns under each prompt, `[M, K]`."""
    each = np.arange(classes)
    return each, np.arange(0, len(fit.mean), fit.texts)[:, None] + each


def _own_scales(fit: ReadoutFit, classes: int) -> Floats:
    """Returns the typical standard deviation of the classes' own columns under each prompt, `[M]`."""
    scales: Floats = np.sqrt((fit.scale[_own(fit, classes)[1]] ** 2).mean(axis=1))
    return scales


def _penalties(fit: ReadoutFit) -> Floats:
    """Returns the penalty of each of the n standardised numbers, `[R, n]`."""
    columns, prompts = len(fit.mean), len(fit.mean) // fit.texts
    classes = (fit.search.point.shape[1] - prompts) // (columns + 1)
    matrix = np.broadcast_to(fit.ridges[:, None, None], (len(fit.ridges), classes, columns + 1)).copy()
    matrix[:, :, -1] = SMALL_RIDGE
    return np.pad(matrix.reshape(len(matrix), -1), ((0, 0), (0, prompts)), constant_values=SMALL_RIDGE)


def _units(fit: ReadoutFit) -> Floats:
    """Returns the standardised numbers per unit of a search's variable, `[R, n]`; 0 where the ridge is infinite.

    With them the second derivatives of all variables are about 1, those of the penalty included.
    """
    return 1.0 / np.sqrt(CURVATURE + _penalties(fit))


def _shares(fit: ReadoutFit) -> Floats:
    """Returns the penalty of each of a search's variables, `[R, n]`: penalty times unit squared."""
    return 1.0 / (1.0 + CURVATURE / _penalties(fit))
