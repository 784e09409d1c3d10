"""Fits readouts by L2-regularised multinomial regression, from sums over examples that never leave their clients.

For each of R penalties, the fit minimises

    mean cross-entropy + ridge / 2 |D~|^2 + SMALL_RIDGE / 2 (|b~|^2 + a~^2)

over D~ `[K, C]`, b~ `[K]` and a number a~. D~ and b~ are the readout of columns that are standardised to mean 0 and
variance 1, and a~ scales the classes' own scores, as a temperature does: D is the sum of D~ and a multiple of W_0
(`tasks.readout`). So a large ridge draws the result to offsets and a temperature, not to nothing. The temperature is
almost free because dev examples choose the ridge by their loss: without it, they choose a small one whenever the PTM's
scores are too close together, although one number can mend that and the columns may tell nothing.

The objective is convex and the sums are exact, so the result is that of all examples in one place, whatever the label
skew. Clients do not know the standardisation: they get readouts of their own columns. The first sums, those of the
readout 0, hold the moments that it is computed from. Then each `tell` is one evaluation of L-BFGS. About 30 give the
accuracy of the minimum, and 100 to 150 its digits.
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
CURVATURE = 0.1
"""The typical second derivative of the cross-entropy. It makes the search's variables alike, whatever the ridge."""


@dataclass(frozen=True, slots=True)
class ReadoutFit:
    """The state of R fits of a readout with K classes and C columns."""

    ridges: Floats
    """The penalties, `[R]`."""
    standardised: bool
    """Whether `mean` and `scale` are those of the columns that the fit evaluates; false before its first sums."""
    mean: Floats
    """The mean of each column over the training examples, `[C]`."""
    scale: Floats
    """The standard deviation of each column, `[C]`; 1 for a column with a single value."""
    search: LbfgsState
    """The searches, n = K (C + 1) + 1: D~ with b~ as its last column, and a~, divided by `_units`."""
    dev_loss: Floats
    """The mean loss of the accepted readouts over the dev examples, `[R]`; 0 before it is known."""
    dev_weight: float
    """The number of dev examples in the last sums."""


def init(ridges: Sequence[float], classes: int, columns: int) -> ReadoutFit:
    """Returns the fits before the first evaluation, which is that of the readout 0.

    Args:
        ridges: The penalties, positive; infinity keeps D~ at 0.
        classes: K.
        columns: C, of which the first K are the classes' own.
    """
    start = np.zeros((len(ridges), classes * (columns + 1) + 1))
    return ReadoutFit(
        ridges=np.array(ridges, np.float64),
        standardised=False,
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
        columns: C, at least as many as before. Further columns follow those before, and begin with zeros.
    """
    more = columns - len(fit.mean)
    matrix, temperature = _parts(fit)
    wider = np.insert(matrix, [len(fit.mean)] * more, 0.0, axis=2)
    mean, scale = np.pad(fit.mean, (0, more)), np.pad(fit.scale, (0, more), constant_values=1.0)
    return _moved(replace(fit, standardised=False, mean=mean, scale=scale), wider, temperature)


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


def fit_readout(
    columns: npt.NDArray[np.floating],
    labels: Labels,
    dev_columns: npt.NDArray[np.floating],
    dev_labels: Labels,
    classes: int,
    ridges: Sequence[float] = RIDGES,
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
        evaluations: The number of evaluations of the loss.
    """
    fit = init(ridges, classes, columns.shape[1])
    for _ in range(evaluations):
        asked = readouts(fit)
        dev_loss, dev_weight = losses(dev_columns, dev_labels, asked), float(len(dev_labels))
        fit = tell(fit, replace(sums(columns, labels, asked), dev_loss=dev_loss, dev_weight=dev_weight))
    index = best(fit)
    return accepted(fit)[index], float(fit.ridges[index])


def _standardised(fit: ReadoutFit, told: ReadoutSums) -> ReadoutFit:
    """Returns the fits with the mean and the scale of each column, at the same readouts."""
    mean, square = told.moments / told.weight
    variance = square - mean**2
    varies = variance > CONSTANT * square
    found = replace(fit, standardised=True, mean=mean, scale=np.sqrt(np.where(varies, variance, 1.0)))
    matrix, temperature = _parts(fit)
    d = accepted(fit)[:, :, :-1]
    matrix[:, :, -1] += d @ (mean - fit.mean)
    matrix[:, :, :-1] *= found.scale / fit.scale
    classes = d.shape[1]
    return _moved(found, matrix, temperature * _own_scale(found, classes) / _own_scale(fit, classes))


def _parts(fit: ReadoutFit) -> tuple[Floats, Floats]:
    """Returns D~ and b~ `[R, K, C + 1]` and a~ `[R, 1]` of the accepted readouts."""
    x = fit.search.point * _units(fit)
    return x[:, :-1].reshape(len(x), -1, len(fit.mean) + 1), x[:, -1:]


def _moved(fit: ReadoutFit, matrix: Floats, temperature: Floats) -> ReadoutFit:
    """Returns new fits that begin at these D~, b~ and a~."""
    x = np.concatenate([matrix.reshape(len(matrix), -1), temperature], axis=1)
    fit = replace(fit, search=lbfgs.init(x))
    units = _units(fit)
    return replace(fit, search=lbfgs.init(np.divide(x, units, out=np.zeros_like(x), where=units > 0)))


def _readouts(fit: ReadoutFit, point: Floats) -> Floats:
    """Returns the readouts `[R, K, C + 1]` of points `[R, n]` of the searches."""
    x = point * _units(fit)
    matrix = x[:, :-1].reshape(len(x), -1, len(fit.mean) + 1)
    d = matrix[:, :, :-1] / fit.scale
    own = np.arange(d.shape[1])
    d[:, own, own] += x[:, -1:] / _own_scale(fit, len(own))
    return np.concatenate([d, matrix[:, :, -1:] - (d @ fit.mean)[:, :, None]], axis=2)


def _standardised_gradient(fit: ReadoutFit, gradient: Floats) -> Floats:
    """Returns the derivatives `[R, n]` by D~, b~ and a~ from those by D and b `[R, K, C + 1]`."""
    by_offsets = gradient[:, :, -1:]
    centred = gradient[:, :, :-1] - by_offsets * fit.mean
    own = np.arange(gradient.shape[1])
    by_temperature = centred[:, own, own].sum(axis=1, keepdims=True) / _own_scale(fit, len(own))
    by_matrix = centred / fit.scale
    flat = np.concatenate([by_matrix, by_offsets], axis=2).reshape(len(gradient), -1)
    return np.concatenate([flat, by_temperature], axis=1)


def _own_scale(fit: ReadoutFit, classes: int) -> float:
    """Returns the typical standard deviation of the classes' own columns."""
    return float(np.sqrt((fit.scale[:classes] ** 2).mean()))


def _penalties(fit: ReadoutFit) -> Floats:
    """Returns the penalty of each of the n standardised numbers, `[R, n]`."""
    columns, n = len(fit.mean), fit.search.point.shape[1]
    matrix = np.broadcast_to(fit.ridges[:, None, None], (len(fit.ridges), n // (columns + 1), columns + 1)).copy()
    matrix[:, :, -1] = SMALL_RIDGE
    return np.pad(matrix.reshape(len(matrix), -1), ((0, 0), (0, 1)), constant_values=SMALL_RIDGE)


def _units(fit: ReadoutFit) -> Floats:
    """Returns the standardised numbers per unit of a search's variable, `[R, n]`; 0 where the ridge is infinite.

    With them the second derivatives of all variables are about 1, those of the penalty included.
    """
    return 1.0 / np.sqrt(CURVATURE + _penalties(fit))


def _shares(fit: ReadoutFit) -> Floats:
    """Returns the penalty of each of a search's variables, `[R, n]`: penalty times unit squared."""
    return 1.0 / (1.0 + CURVATURE / _penalties(fit))
