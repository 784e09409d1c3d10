"""How much of an accelerator a backend uses with a large model in bfloat16. Needs torch.

The clock runs from z to scores. The loop beside it is black-box tuning's own: the whole model with a mask and all of
its head, a batch for each prompt, whose vectors are there before.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.random_models import CLASSES
from fedbbpt.bench.ptm.loops.shapes import Shaped, make
from fedbbpt.bench.ptm.turns import Note
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec

PART = "device"
TASK = TaskSpec("{prompt} {text} {mask}", CLASSES)
TOKENS = 150
"""Of an input with its prompt and its mask."""
PRODUCTS, JOBS, MIXED = "matrix products", f"jobs of {TOKENS} tokens", "jobs of mixed lengths"
PRODUCT_SIZE: Mapping[str, int] = {"cuda": 8192, "cpu": 512}
PRODUCTS_AT_A_TIME = 20
"""Launched together, so that the first one's launch hardly counts."""
CALLERS, JOBS_OF_EACH = 2, 2
"""As a service has several: while the jobs of one are computed, the next of another is made ready."""
LOOPS = "bfloat16", "float32"
"""Precisions of the loop: that of the jobs, and that of the published code."""
BARS = {
    f"roberta-large: {JOBS} / {PRODUCTS}": Bar(0.6),
    f"roberta-large: {JOBS} / a prompt at a time, bfloat16": Bar(5),
}


def measure(device: str, shape: str, workload: Workload, repeats: int, note: Note) -> tuple[Figure, ...]:
    """`device` "cpu" or "cuda"; empty: CUDA's where there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "")
    found = _measure(device, shape, workload, repeats, note) if device else {}
    units = {PRODUCTS: "TFLOP/s", JOBS: "TFLOP/s", f"{JOBS} / {PRODUCTS}": "x", f"{JOBS} / {PRODUCTS}, one caller": "x"}
    units[MIXED] = "TFLOP/s"
    units |= {f"{jobs} / a prompt at a time, {loop}": "x" for jobs in (JOBS, MIXED) for loop in LOOPS}
    named = ((f"{shape}: {name}", found.get(name, ()), unit) for name, unit in units.items())
    return tuple(Figure(PART, name, values, unit, BARS.get(name)) for name, values, unit in named)


def _measure(device: str, shape: str, workload: Workload, repeats: int, note: Note) -> Mapping[str, tuple[float, ...]]:
    model = make(shape, device)
    words = TOKENS - workload.prompt_tokens - 1
    works = {JOBS: replace(workload, shortest=words, longest=words), MIXED: workload}
    found: dict[str, tuple[float, ...]] = {}
    with ThreadPoolExecutor(model.backend.threads) as pool:  # as many micro-batches side by side as in a service
        for name, work in works.items():
            note(f"{device}: {shape}, {name}")
            products, rates, alone, gains = _in_turns(model, work, repeats, device, pool)
            found |= {f"{name} / a prompt at a time, {loop}": tuple(values) for loop, values in gains.items()}
            found[name] = tuple(rates)
            if name == JOBS:
                found[PRODUCTS] = tuple(products)
                found[f"{JOBS} / {PRODUCTS}"] = tuple(a / b for a, b in zip(rates, products, strict=True))
                found[f"{JOBS} / {PRODUCTS}, one caller"] = tuple(a / b for a, b in zip(alone, products, strict=True))
    return found


def _in_turns(
    model: Shaped, work: Workload, repeats: int, device: str, pool: ThreadPoolExecutor
) -> tuple[list[float], list[float], list[float], Mapping[str, list[float]]]:
    """The rates in TFLOP/s of matrix products, of jobs and of those of one caller; how often jobs are as fast as each
    loop."""
    rows = model.backend.prepare(TASK, work.texts(), work.prompt_tokens, None)
    lengths = [len(row.ids) + work.prompt_tokens for row in rows]
    flops = work.prompts * sum(model.flops(length, length) for length in lengths)
    size = PRODUCT_SIZE[device]
    a, b = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    products: list[float] = []
    rates: list[float] = []
    rates_alone: list[float] = []
    gains: dict[str, list[float]] = {loop: [] for loop in model.usual}
    for repeat in range(repeats + 2):
        multiplying = _seconds(partial(_multiply, a, b), device)
        alone = _seconds(partial(_run, model, work, repeat, rows, pool), device)
        ours = _seconds(partial(_run_several, model, work, repeat, rows, pool), device) / (CALLERS * JOBS_OF_EACH)
        loops = {
            name: _seconds(partial(_usual, usual, work, lengths, device), device) for name, usual in model.usual.items()
        }
        if repeat >= 2:  # a first job warms up, and the shapes of a second are recorded
            products.append(PRODUCTS_AT_A_TIME * 2 * size**3 / multiplying / 1e12)
            rates.append(flops / ours / 1e12)
            rates_alone.append(flops / alone / 1e12)
            for name, seconds in loops.items():
                gains[name].append(seconds / ours)
    return products, rates, rates_alone, gains


def _multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(PRODUCTS_AT_A_TIME):
        a @ b


def _run(model: Shaped, work: Workload, repeat: int, rows: Sequence[Any], pool: ThreadPoolExecutor) -> None:
    job = model.backend.job(TASK, work.latent(repeat), rows, np.ones((work.prompts, len(rows)), bool))
    for _ in pool.map(job.run, job.batches):
        pass


def _run_several(model: Shaped, work: Workload, repeat: int, rows: Sequence[Any], pool: ThreadPoolExecutor) -> None:
    def call(caller: int) -> None:
        for job in range(JOBS_OF_EACH):
            _run(model, work, repeat + 1000 * (1 + caller + CALLERS * job), rows, pool)

    with ThreadPoolExecutor(CALLERS) as callers:
        for _ in callers.map(call, range(CALLERS)):
            pass


def _usual(usual: Any, work: Workload, lengths: Sequence[int], device: str) -> None:
    weight = usual.get_input_embeddings().weight
    inputs = torch.zeros(len(lengths), max(lengths), weight.shape[1], dtype=weight.dtype, device=device)
    mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(device)
    with torch.inference_mode():
        for _ in range(work.prompts):
            usual(inputs_embeds=inputs, attention_mask=mask).logits[:, -1, :2].tolist()


def _seconds(call: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
