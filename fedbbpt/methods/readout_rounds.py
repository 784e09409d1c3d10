"""Rounds that fit a readout, the same ones in fed-readout and between the rounds of a search.

Such a round evaluates R readouts, one for each ridge, on all examples of the clients. Its broadcast holds

- `readouts` `[R, K, C + 1]`: the readouts to evaluate, in float64. If C is m V, they need no prompt.
- `mean` `[n]`: z, the prompt and the best readout so far, whose prompt the readouts are evaluated under.
- `whole` `[1]`, uint8, only in a refit: the sums are over the training and dev examples together.

An update holds sums over the client's examples: `loss` `[R]`, `gradient` `[R, K, C + 1]` and `moments` `[2, C]` over
the training examples, `dev_loss` `[R]` and `dev_weight` `[1]` over the dev examples. The server adds them up, and each
fit takes one step (tasks/readout_fit.py). The dev examples choose between the ridges, and a refit with that ridge may
then learn from them too.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidUpdate
from fedbbpt.interfaces import Objectives
from fedbbpt.methods.method import ReadoutConfig
from fedbbpt.methods.update_rules import LOSS, NOT_NEGATIVE, UpdateRules, Weight
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.tasks import readout_fit
from fedbbpt.tasks.readout_fit import ReadoutFit
from fedbbpt.types import Arrays, Metrics, ReadoutSums, Update, merge

CLIP_NORM = "clip_norm"
"""The array of a noisy sum that says how long what each client, or each example, added to it may be."""
ROUNDING = 1e-5
"""Relative error of sums that travel as float32."""
GAP = 1e-4
"""A fit has converged if its objective is about this close to its minimum, in nats."""


def start(config: ReadoutConfig, space: ReadoutSpace) -> ReadoutFit:
    """Returns the fits of readouts that use the views only, before their first round."""
    return readout_fit.init(config.ridges, space.classes, space.columns, len(space.views))


def continued(fit: ReadoutFit, space: ReadoutSpace) -> ReadoutFit:
    """Returns new fits that begin with the readouts that `fit` has found, and use the prompt as well as the views."""
    return readout_fit.restarted(fit, space.width)


def converged(fit: ReadoutFit) -> bool:
    """Returns whether further rounds would not change the readouts noticeably."""
    search = fit.search
    # Newton's decrement: half of it is the distance to the minimum of a quadratic function.
    gaps = -(search.direction * search.gradient).sum(axis=1) / 2
    return bool((search.failures == 0).all() and (gaps <= GAP).all())


def best(fit: ReadoutFit, space: ReadoutSpace) -> npt.NDArray[np.float64]:
    """Returns the readout `[K, C + 1]` with the lowest dev loss so far, with zeros for columns that it does not use."""
    found = readout_fit.accepted(fit)[readout_fit.best(fit)]
    missing = space.width + 1 - found.shape[1]
    return np.insert(found, [found.shape[1] - 1] * missing, 0.0, axis=1)


def broadcast(fit: ReadoutFit, space: ReadoutSpace, prompt: npt.NDArray[np.floating]) -> Arrays:
    """Returns the arrays of a round's tasks, for a prompt `[n]` of the space without its readout."""
    # In float64: float32 would move the readouts by more than the last steps of a fit do.
    arrays: Arrays = {"readouts": readout_fit.readouts(fit), "mean": space.join(prompt, best(fit, space))}
    return {**arrays, "whole": np.ones(1, np.uint8)} if fit.whole else arrays


def fits(arrays: Arrays) -> bool:
    """Returns whether the arrays of a task are those of a round that fits a readout."""
    return "readouts" in arrays


def expected(fit: ReadoutFit) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of an update."""
    return sums({"readouts": readout_fit.readouts(fit)})


def sums(arrays: Arrays) -> Mapping[str, tuple[int, ...]]:
    """Returns the shapes of the arrays of an update that answers a broadcast of `arrays`."""
    ridges, classes, width = arrays["readouts"].shape
    return {
        "loss": (ridges,),
        "gradient": (ridges, classes, width),
        "moments": (2, width - 1),
        "dev_loss": (ridges,),
        "dev_weight": (1,),
    }


def rules(arrays: Arrays) -> UpdateRules:
    """Returns what every honest update to a broadcast of `arrays` satisfies."""
    weight = Weight.READ_WHOLE if "whole" in arrays else Weight.READ
    return UpdateRules(weight, {"loss": LOSS, "dev_loss": NOT_NEGATIVE, "dev_weight": NOT_NEGATIVE}, check=_check_sums)


def _check_sums(update: Update) -> None:
    """Raises InvalidUpdate if no scores of the examples can have these sums.

    Each example adds (p - e) s to the gradient, and no entry of p - e is beyond 1. So by Cauchy and Schwarz no sum over
    n examples is beyond the root of n times the sum of the squares.
    """
    arrays, slack = update.arrays, 1 + ROUNDING
    sums, squares = arrays["moments"]
    if (squares < 0).any():
        raise InvalidUpdate(f"a sum of squares of {squares.min():g}", where="moments", fix="none below 0")
    most = np.append(np.sqrt(update.weight * squares), update.weight)
    if (np.abs(sums) > slack * most[:-1]).any():
        raise InvalidUpdate("sums that are too large for their squares", where="moments", fix="those of one column")
    if (np.abs(arrays["gradient"]) > slack * most).any():
        raise InvalidUpdate("a gradient that is too long for the moments", where="gradient", fix="that of these scores")


def step(fit: ReadoutFit, updates: Sequence[Update]) -> tuple[ReadoutFit, Metrics]:
    """Returns the fits after a round. `train_loss` is the loss of the readout that was the best before the round.

    A sum with noise holds the `clip_norm` `[1]` of its clients or examples as well, and of the rest only the gradient.
    """
    total = merge(updates)
    arrays = total.arrays
    if CLIP_NORM in arrays:
        return readout_fit.descended(fit, arrays["gradient"] / total.weight, float(arrays[CLIP_NORM][0])), {}
    sums = ReadoutSums(
        loss=arrays["loss"],
        gradient=arrays["gradient"],
        moments=arrays["moments"],
        weight=total.weight,
        dev_loss=arrays["dev_loss"],
        dev_weight=float(arrays["dev_weight"][0]),
    )
    train_loss = float(sums.loss[readout_fit.best(fit)] / sums.weight)
    return readout_fit.tell(fit, sums), {"train_loss": train_loss}


def of_fit(arrays: Arrays) -> bool:
    """Returns whether the arrays of an update are those of a round that fits a readout."""
    return "moments" in arrays


def essential(arrays: Arrays) -> Arrays:
    """Returns the part of an update's arrays that a fit with noise uses, the gradient."""
    return {name: array if name == "gradient" else 0.0 * array for name, array in arrays.items()}


def update(objectives: Objectives, arrays: Arrays, space: ReadoutSpace) -> Update:
    """Returns a client's answer to a round's task."""
    prompt = arrays["mean"][: space.prompt.dim]
    sums = objectives.readout(prompt, arrays["readouts"], whole="whole" in arrays)
    found = {
        "loss": sums.loss,
        "gradient": sums.gradient,
        "moments": sums.moments,
        "dev_loss": sums.dev_loss,
        "dev_weight": np.array([sums.dev_weight]),
    }
    return Update(found, sums.weight)
