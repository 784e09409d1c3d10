"""Compares a causal model that reuses the keys and values of texts and prompts with full passes of the model."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedbbpt.bench.ptm.comparison import Progress, Scorer, compare
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.random_models import CLASSES, SMALL_LLAMA, save_random_model
from fedbbpt.bench.ptm.loops.reference_loops import ReferenceLoops
from fedbbpt.bench.ptm.running_service import run_service
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import Injection, TaskSpec

PART = "causal"
TASKS: Mapping[str, TaskSpec] = {
    "input first": TaskSpec("{text} {prompt} {mask}", CLASSES),
    "prompt first": TaskSpec("{prompt} {text} {mask}", CLASSES),
}
BARS = {"input first": Bar(2.5)}


def with_text_length(workload: Workload, words: int) -> Workload:
    """Returns the workload with texts of one length, and prompts at the template's {prompt}."""
    return replace(workload, shortest=words, longest=words, injection=Injection.PLACE)


def measure(
    model: str, folder: Path, threads: int, workload: Workload, repeats: int, progress: Progress
) -> tuple[Figure, ...]:
    """Compares a service of a causal language model with full passes. An empty `model` makes a random one."""
    model = model or str(save_random_model(SMALL_LLAMA, folder / "model"))
    with run_service(folder, model, threads) as service:
        scorers: dict[str, Scorer] = {}
        for order, task in TASKS.items():
            scorers[order] = service.scorer(task, workload)
            scorers[f"{order}, new texts"] = service.scorer_of_new_texts(task, replace(workload, series="new texts"))
            scorers[f"{order}, full passes"] = ReferenceLoops(model, "causal-lm", task, workload, threads).ideal
        comparison = compare(scorers, workload, repeats, progress)
    figures = [Figure(PART, name, rates, "pairs/s") for name, rates in comparison.rates.items()]
    for order in TASKS:
        full, new = f"{order}, full passes", f"{order}, new texts"
        figures += [
            Figure(PART, f"{order} / full passes", comparison.ratios(order, full), "x", BARS.get(order)),
            Figure(PART, f"{order} / full passes, new texts", comparison.ratios(new, full), "x"),
            Figure(PART, f"{order}: scores apart", (comparison.largest_difference(order, full),)),
        ]
    return tuple(figures)
