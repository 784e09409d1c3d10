"""A readout: class scores as an affine function of the scores of C columns, and its loss as sums over examples.

The classes' scores are (W_0 + D) s + b, with s the C column scores of an example. W_0 is the identity on the first K
columns, which are the classes' own, so that D = 0 and b = 0 give the PTM's own class scores. A readout is written
`[K, C + 1]`: D with b as its last column.
"""

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidTensor
from fedbbpt.tasks.criterion import Labels
from fedbbpt.types import ReadoutSums

Floats = npt.NDArray[np.float64]


def scores(columns: npt.NDArray[np.floating], readouts: npt.NDArray[np.floating]) -> Floats:
    """Returns the class scores `[R, B, K]` of readouts `[R, K, C + 1]` from column scores `[B, C]`."""
    s, d, b = columns.astype(np.float64), readouts[..., :-1].astype(np.float64), readouts[..., -1].astype(np.float64)
    shape = s.shape[1], *d.shape[1:]
    if shape[0] != shape[2] or shape[1] > shape[0]:
        raise InvalidTensor(
            f"readouts {list(readouts.shape)} do not fit {s.shape[1]} columns",
            where="readouts",
            fix="[readouts, classes, columns + 1]",
        )
    by_columns = (s @ d.reshape(-1, shape[0]).T).reshape(len(s), *d.shape[:2])  # in one product of matrices
    return np.asarray((s[:, None, : d.shape[1]] + by_columns + b).transpose(1, 0, 2))


def losses(columns: npt.NDArray[np.floating], labels: Labels, readouts: npt.NDArray[np.floating]) -> Floats:
    """Returns the cross-entropy of each readout summed over the examples, `[R]`."""
    return _losses(scores(columns, readouts), labels)[0]


def sums(columns: npt.NDArray[np.floating], labels: Labels, readouts: npt.NDArray[np.floating]) -> ReadoutSums:
    """Returns the loss of the readouts with its derivatives on training examples, without dev examples.

    Args:
        columns: The column scores of the examples, `[B, C]`, B may be 0.
        labels: Their classes `[B]`.
        readouts: `[R, K, C + 1]`.
    """
    s = columns.astype(np.float64)
    loss, p = _losses(scores(columns, readouts), labels)
    p[:, np.arange(len(labels)), labels] -= 1.0
    with_one = np.concatenate([s, np.ones((len(s), 1))], axis=1)
    gradient = p.transpose(0, 2, 1) @ with_one
    nothing = np.zeros(len(readouts))
    return ReadoutSums(loss, gradient, np.array([s.sum(axis=0), (s**2).sum(axis=0)]), float(len(s)), nothing, 0.0)


def _losses(logits: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """Returns the sums of the cross-entropy `[R]` and the probabilities `[R, B, K]`."""
    logits = logits - logits.max(axis=2, keepdims=True)
    normaliser = np.log(np.exp(logits).sum(axis=2))
    loss = (normaliser - logits[:, np.arange(len(labels)), labels]).sum(axis=1)
    return loss, np.exp(logits - normaliser[:, :, None])
