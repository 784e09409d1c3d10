"""Measures how much of an accelerator the service uses with a large model in bfloat16. Needs torch.

The model is a checkpoint with random weights, served on the device and asked over gRPC. The clock runs from z to
scores. Next to it, in this process, black-box tuning's own loop scores batches of the same sizes.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedbbpt.bench.ptm.comparison import Progress, Scorer
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.prompt_at_a_time import PromptAtATimeLoop, load_loop, reads_mask
from fedbbpt.bench.ptm.loops.random_models import CLASSES, save_random_model
from fedbbpt.bench.ptm.running_service import run_service
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import Precision, TaskSpec

PART = "device"
TASK = TaskSpec("{prompt} {text} {mask}", CLASSES)
TOKENS = 150
"""Tokens of an input with its prompt and its mask token."""
PRODUCTS, JOBS, MIXED = "matrix products", f"jobs of {TOKENS} tokens", "jobs of mixed lengths"
PRODUCT_SIZE: Mapping[str, int] = {"cuda": 8192, "cpu": 512}
"""Rows and columns of the matrices that are multiplied to find the device's speed."""
PRODUCTS_AT_A_TIME = 20
"""Products that are launched together, so that the time of the first launch hardly counts."""
CALLERS, JOBS_OF_EACH = 2, 2
"""A service has several callers: while one's job is computed, the next job is prepared."""
WARM_UPS = 2
"""Jobs that are not counted: the first warms up, and the shapes of the second are recorded as CUDA graphs."""
LOOPS = "bfloat16", "float32"
"""Precisions of the loop: that of the service, and that of the published code."""
BARS = {
    f"roberta-large: {JOBS} / {PRODUCTS}": Bar(0.6),
    f"roberta-large: {JOBS} / a prompt at a time, bfloat16": Bar(5),
}


@dataclass(frozen=True, slots=True)
class _Rates:
    """Rates in TFLOP/s, one value for each repeat, and the ratios of speeds to those of the loops."""

    products: list[float] = field(default_factory=list)
    jobs: list[float] = field(default_factory=list)
    one_caller: list[float] = field(default_factory=list)
    over_loops: dict[str, list[float]] = field(default_factory=lambda: {loop: [] for loop in LOOPS})


def measure(
    device: str, shape: str, folder: Path, workload: Workload, repeats: int, progress: Progress
) -> tuple[Figure, ...]:
    """Returns the figures of one of `random_models.SHAPES`, without values where there is no device.

    `device` is "cpu" or "cuda"; empty takes CUDA where the machine has it. `folder` holds the checkpoint and the log.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "")
    found = _measure(device, shape, folder, workload, repeats, progress) if device else {}
    units = {PRODUCTS: "TFLOP/s", JOBS: "TFLOP/s", f"{JOBS} / {PRODUCTS}": "x", f"{JOBS} / {PRODUCTS}, one caller": "x"}
    units[MIXED] = "TFLOP/s"
    units |= {f"{jobs} / a prompt at a time, {loop}": "x" for jobs in (JOBS, MIXED) for loop in LOOPS}
    named = ((f"{shape}: {name}", found.get(name, ()), unit) for name, unit in units.items())
    return tuple(Figure(PART, name, values, unit, BARS.get(name)) for name, values, unit in named)


def _measure(
    device: str, shape: str, folder: Path, workload: Workload, repeats: int, progress: Progress
) -> Mapping[str, tuple[float, ...]]:
    progress(f"making {shape}")
    checkpoint = save_random_model(shape, folder / "model", torch.bfloat16)
    masked = reads_mask(checkpoint)
    words = TOKENS - workload.prompt_tokens - 1
    workloads = {JOBS: replace(workload, shortest=words, longest=words), MIXED: workload}
    found: dict[str, tuple[float, ...]] = {}
    with run_service(folder, str(checkpoint), 0, Precision.BFLOAT16, device=device) as service:
        # A large model may leave no room for its copy in float32.
        loops = {loop: load_loop(checkpoint, loop, device) for loop in LOOPS if masked or loop == "bfloat16"}
        for name, work in workloads.items():
            progress(f"{device}: {shape}, {name}")
            lengths = [len(text.split()) + work.prompt_tokens + masked for text in work.texts().texts]
            rates = _in_turns(service.scorer(TASK, work), loops, work, lengths, repeats, device)
            found |= {f"{name} / a prompt at a time, {loop}": tuple(each) for loop, each in rates.over_loops.items()}
            found[name] = tuple(rates.jobs)
            if name == JOBS:
                found[PRODUCTS] = tuple(rates.products)
                found[f"{JOBS} / {PRODUCTS}"] = _ratios(rates.jobs, rates.products)
                found[f"{JOBS} / {PRODUCTS}, one caller"] = _ratios(rates.one_caller, rates.products)
    return found


def _ratios(one: list[float], other: list[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(one, other, strict=True))


def _in_turns(
    scorer: Scorer,
    loops: Mapping[str, PromptAtATimeLoop],
    work: Workload,
    lengths: Sequence[int],
    repeats: int,
    device: str,
) -> _Rates:
    flops = work.prompts * sum(loops["bfloat16"].flops(length, length) for length in lengths)
    size = PRODUCT_SIZE[device]
    a, b = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    found = _Rates()
    for repeat in range(repeats + WARM_UPS):
        multiplying = _seconds(partial(_multiply, a, b), device)
        one_caller = _seconds(scorer(work.latent(repeat)), device)
        ours = _seconds(partial(_run_callers, scorer, work, repeat), device) / (CALLERS * JOBS_OF_EACH)
        looping = {name: _seconds(partial(loop.run, work.prompts, lengths), device) for name, loop in loops.items()}
        if repeat >= WARM_UPS:
            found.products.append(PRODUCTS_AT_A_TIME * 2 * size**3 / multiplying / 1e12)
            found.jobs.append(flops / ours / 1e12)
            found.one_caller.append(flops / one_caller / 1e12)
            for name, seconds in looping.items():
                found.over_loops[name].append(seconds / ours)
    return found


def _multiply(a: Tensor, b: Tensor) -> None:
    for _ in range(PRODUCTS_AT_A_TIME):
        a @ b


def _run_callers(scorer: Scorer, work: Workload, repeat: int) -> None:
    def call(caller: int) -> None:
        for job in range(JOBS_OF_EACH):
            scorer(work.latent(repeat + 1000 * (1 + caller + CALLERS * job)))()

    with ThreadPoolExecutor(CALLERS) as callers:
        for _ in callers.map(call, range(CALLERS)):
            pass


def _seconds(call: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
