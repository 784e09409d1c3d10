"""Causal models: what keeping the keys and values of texts and prompts gains over full passes."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.by_hand import ByHand
from fedbbpt.bench.ptm.loops.random_models import CLASSES, save_llama
from fedbbpt.bench.ptm.service import service
from fedbbpt.bench.ptm.turns import Note, Way, take_turns
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import Injection, TaskSpec

PART = "causal"
TASKS: Mapping[str, TaskSpec] = {
    "input first": TaskSpec("{text} {prompt} {mask}", CLASSES),
    "prompt first": TaskSpec("{prompt} {text} {mask}", CLASSES),
}
BARS = {"input first": Bar(2.5)}


def texts_of(workload: Workload, words: int) -> Workload:
    """The same with texts of one length."""
    return replace(workload, shortest=words, longest=words, injection=Injection.PLACE)


def measure(model: str, folder: Path, threads: int, workload: Workload, repeats: int, note: Note) -> tuple[Figure, ...]:
    """`model` is a causal language model; empty: a random one, which is made in `folder`."""
    model = model or str(save_llama(folder / "model"))
    with service(folder, model, threads) as started:
        ways: dict[str, Way] = {}
        for order, task in TASKS.items():
            ways[order] = started.way(task, workload)
            ways[f"{order}, new texts"] = started.anew(task, replace(workload, series="new texts"))
            ways[f"{order}, full passes"] = ByHand(model, "causal-lm", task, workload, threads).ideal
        turns = take_turns(ways, workload, repeats, note)
    figures = [Figure(PART, name, rates, "pairs/s") for name, rates in turns.rates.items()]
    for order in TASKS:
        full = f"{order}, full passes"
        figures += [
            Figure(PART, f"{order} / full passes", turns.ratios(order, full), "x", BARS.get(order)),
            Figure(PART, f"{order} / full passes, new texts", turns.ratios(f"{order}, new texts", full), "x"),
            Figure(PART, f"{order}: scores apart", (turns.apart(order, full),)),
        ]
    return tuple(figures)
