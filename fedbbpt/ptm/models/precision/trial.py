"""Measures a model in one precision: how long it takes, and which scores it gives."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from fedbbpt.errors import FedbbptError, PromptTooLong
from fedbbpt.interfaces import Backend
from fedbbpt.types import Examples, Scores, TaskSpec, TextPrompts

PASSES = 5
"""Timed passes, of which the median counts."""
MOST_SECONDS = 10.0
"""No further pass of a measurement begins after this time."""
PRODUCT_ROWS = 256
"""Rows of the product that is measured first."""

_TEXTS = (
    "The film was long, but I did not want it to end.",
    "Where do I pay the bill for my last stay?",
    "Shares of the company fell by four percent on Monday after it had cut its forecast for the year.",
    "It broke after two days.",
    "A team of researchers has found water below the surface of a small moon, according to a report.",
    "Please call me back before noon, because the office closes early today.",
    "The food was cold and the waiter was rude, yet my friends said that they would come again.",
    "Who wrote the song that they played at the end of the match?",
)
_PROMPTS = tuple(f"{verb} {what}:" for verb in ("Read", "Judge") for what in ("this", "a text", "the lines", "it well"))
"""With these, the pairs fill a micro-batch of a CPU."""
_WORDS = ("good", "bad", "yes", "no", "great", "terrible", "true", "false", "the", "a", "of", "in", "is", "one", "two")
_PROMPT_TOKENS = 16
"""Room for the longest of the prompts, in any vocabulary of words or parts of words."""
_MOST_CLASSES = 6
_TEMPLATES = ("{prompt} {text} It was {mask}.", "{prompt} {text} It was {mask}", "{prompt} {text}")
"""For masked models, for models that continue a text, and for those that have no label words. The first that fits."""


@dataclass(frozen=True, slots=True)
class Trial:
    """The measurement of a model in one precision."""

    seconds: float
    """Median time of a pass over all pairs of a prompt and a text."""
    scores: Scores
    """The scores `[P, B, K]` of all pairs."""


def measure_product(width: int, device: str) -> float:
    """Returns how many times as fast one thread multiplies `[256, width]` by `[width, width]` in bfloat16."""

    def seconds(dtype: torch.dtype) -> float:
        a, b = (torch.full((rows, width), 0.01, dtype=dtype, device=device) for rows in (PRODUCT_ROWS, width))
        return _median_seconds(lambda: float((a @ b)[0, 0]))  # reading a number waits for the device

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as models compute
    try:
        with torch.inference_mode():
            return seconds(torch.float32) / seconds(torch.bfloat16)
    finally:
        torch.set_num_threads(threads)


def measure_model(model: Backend[Any]) -> Trial | None:
    """Times a model on a few texts and keeps their scores. Returns None if it cannot score these texts and words."""
    task = _probe_task(model)
    if task is None:
        return None
    prompts, examples = TextPrompts(_PROMPTS), Examples(_TEXTS)
    wanted = np.ones((len(_PROMPTS), len(_TEXTS)), bool)
    scores = np.empty((*wanted.shape, len(task.classes)), np.float32)

    def run(pool: ThreadPoolExecutor) -> None:
        # Prepared anew for each pass, because a causal model keeps keys and values with its prepared examples.
        job = model.job(task, prompts, model.prepare(task, examples, _PROMPT_TOKENS, None), wanted)
        for batch, part in zip(job.batches, pool.map(job.run, job.batches), strict=True):
            scores[batch.prompts, batch.rows] = part

    try:
        with ThreadPoolExecutor(model.threads) as pool:
            return Trial(_median_seconds(lambda: run(pool)), scores)
    except PromptTooLong:  # a very short longest input
        return None


def _probe_task(model: Backend[Any]) -> TaskSpec | None:
    """Returns a task with as many of the words as the model can score, if these are at least two."""
    words = model.describe().labels or _WORDS
    for template in _TEMPLATES:
        for first in range(len(words) - 1):
            found = list(words[first : first + 1])
            for word in words[first + 1 :]:
                if len(found) < _MOST_CLASSES and _can_score(model, TaskSpec(template, (*found, word))):
                    found.append(word)
            if len(found) > 1:
                return TaskSpec(template, tuple(found))
    return None


def _can_score(model: Backend[Any], task: TaskSpec) -> bool:
    try:
        model.check(task)
        model.prepare(task, Examples(_TEXTS[:1]), _PROMPT_TOKENS, None)
    except FedbbptError:
        return False
    return True


def _median_seconds(run: Callable[[], object]) -> float:
    """Returns the median time of `run` after a first pass that warms up; of fewer passes if they take long."""
    begun, found = perf_counter(), list[float]()
    while len(found) <= PASSES and (not found or perf_counter() - begun < MOST_SECONDS):
        started = perf_counter()
        run()
        found.append(perf_counter() - started)
    return median(found[1:] or found)
