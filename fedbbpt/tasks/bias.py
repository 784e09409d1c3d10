"""The control that a tuned prompt has to beat: one offset for each class, fitted on the same shots.

A zero-shot model often prefers some classes whatever the input is. Much of what prompt tuning gains on it is the repair
of this, and K numbers repair it too (Zhao et al., Calibrate Before Use, arXiv 2102.09690, do so without labels).
So results are reported beside those of these offsets: what lies above them is learnt by the prompt.
"""

import numpy as np
import numpy.typing as npt

from fedbbpt.tasks.criterion import Labels

STEPS = 100


def fit(scores: npt.NDArray[np.floating], labels: Labels, ridge: float = 1e-3) -> npt.NDArray[np.float64]:
    """The offsets b `[K]` that minimise mean cross-entropy(scores + b, labels) + ridge / 2 |b|^2; they sum to zero.

    `scores` `[B, K]` and `labels` `[B]` are finite and fit each other. The objective is convex, and the ridge makes it
    strictly so: there is one minimum, also where a class has no example. Found by Newton's method with halved steps.
    """
    logits = scores.astype(np.float64)
    count, classes = logits.shape
    share = np.bincount(labels, minlength=classes) / count  # [K]

    def objective(offsets: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        """The value, and the probabilities `[B, K]`."""
        shifted = logits + offsets
        shifted -= shifted.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(shifted).sum(axis=1))
        loss = (normaliser - shifted[np.arange(count), labels]).mean()
        return float(loss + ridge / 2 * offsets @ offsets), np.exp(shifted - normaliser[:, None])

    offsets = np.zeros(classes)
    value, p = objective(offsets)
    for _ in range(STEPS):
        gradient = p.mean(axis=0) - share + ridge * offsets
        hessian = np.diag(p.mean(axis=0)) - p.T @ p / count + ridge * np.eye(classes)
        step = np.linalg.solve(hessian, gradient)
        decrement = float(gradient @ step)
        if decrement < 1e-16:
            break
        length = 1.0
        # Far from the minimum a full step may overshoot; convexity makes some half of it descend.
        while True:
            nearer = offsets - length * step
            value_there, p_there = objective(nearer)
            if value_there <= value - length * decrement / 4 or length < 1e-9:
                break
            length /= 2
        offsets, value, p = nearer, value_there, p_there
    return offsets
