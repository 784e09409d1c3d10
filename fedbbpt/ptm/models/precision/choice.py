"""Chooses the precision of a model's layers: bfloat16 where it is clearly faster and moves scores little.

Two measurements decide, one after the other (`trial`):

1. A product of two matrices of the model's width, in both precisions. It takes milliseconds and excludes processors
   that emulate bfloat16, on which the model itself would be several times slower.
2. The model itself, loaded in each precision in turn, scores the same short texts for a few label words.

A choice is remembered (`memory`), so that a service that is started again has the same precision and revision.
"""

import gc
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.precision.memory import Choice, read, write
from fedbbpt.ptm.models.precision.trial import Trial, measure_model
from fedbbpt.types import Precision, Scores

log = logging.getLogger(__name__)

LEAST_SPEEDUP = 1.3
"""bfloat16 must be at least so many times as fast as float32."""
MOST_MOVED = 0.02
"""bfloat16 may move scores by at most this share of their spread; see `moved`."""

B = TypeVar("B", bound=Backend[Any])


def moved(exact: Scores, low: Scores) -> float:
    """Returns how far scores move, relative to their spread between classes: `[P, B, K]` twice -> a ratio.

    Both are taken relative to the mean over a pair's classes, because only differences between classes count. The ratio
    is that of the root mean squares of the movement and of the float32 scores. It is infinite if a score is not finite,
    or if all classes have the same score.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        spread, distance = (_spread(s.astype(np.float64)) for s in (exact, low.astype(np.float64) - exact))
        ratio = float(distance / spread)
    return ratio if np.isfinite(ratio) else np.inf


def _spread(scores: npt.NDArray[np.float64]) -> np.float64:
    """Returns the root mean square of scores `[P, B, K]` relative to the mean over each pair's classes."""
    spread: np.float64 = np.sqrt(np.square(scores - scores.mean(axis=2, keepdims=True)).mean())
    return spread


def choose(exact: Trial, low: Trial) -> Choice:
    """Returns bfloat16 if its trial `low` meets both conditions, and float32 otherwise."""
    speedup, distance = exact.seconds / low.seconds, moved(exact.scores, low.scores)
    fits = speedup >= LEAST_SPEEDUP and distance <= MOST_MOVED
    return Choice(Precision.BFLOAT16 if fits else Precision.FLOAT32, speedup, distance)


def describe(choice: Choice) -> str:
    """Returns the choice and its figures as a sentence."""
    needed = f"at least {LEAST_SPEEDUP:g} are needed"
    if choice.moved is None:
        figures = f"a matrix product in bfloat16 is {choice.speedup:.2f} times as fast as in float32 ({needed})"
        return f"{choice.precision}: {figures}"
    distance = f"moves scores by {100 * choice.moved:.2f} % of their spread (at most {100 * MOST_MOVED:g} %)"
    return f"{choice.precision}: bfloat16 is {choice.speedup:.2f} times as fast as float32 ({needed}) and {distance}"


def load_measured(
    load: Callable[[Precision], B],
    product_speedup: Callable[[], float],
    memory: Path | None = None,
    measure: Callable[[B], Trial | None] = measure_model,
) -> B:
    """Loads a model in the precision that measurements choose, or that they chose before.

    Only one precision is in memory at a time, so a model may be loaded up to three times.

    Args:
        load: Loads the model in a precision.
        product_speedup: Measures how many times as fast a product in bfloat16 is; see `measure_product`.
        memory: The file that remembers the choice; None remembers nothing.
        measure: Measures a loaded model.
    """
    if (known := read(memory)) is not None:
        log.info("precision %s; remembered in %s", describe(known), memory)
        return load(known.precision)
    choice = Choice(Precision.FLOAT32, product_speedup(), None)
    model: B | None = None
    if choice.speedup >= LEAST_SPEEDUP:
        exact = measure(load(Precision.FLOAT32))
        gc.collect()  # frees the model, whose parts refer to each other, before it is loaded again
        try:
            model = load(Precision.BFLOAT16)
            low = measure(model)
        except InvalidInput as error:
            log.info("precision float32: the model does not load in bfloat16 (%s)", error)
            return load(Precision.FLOAT32)
        if exact is None or low is None:
            log.info("precision float32: the model cannot score the texts and words of the measurement")
            return load(Precision.FLOAT32)
        choice = choose(exact, low)
        if choice.precision is Precision.FLOAT32:
            model = None
            gc.collect()
    log.info("precision %s", describe(choice))
    write(memory, choice)
    return load(choice.precision) if model is None else model
