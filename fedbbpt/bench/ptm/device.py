"""How much of an accelerator a backend uses with a large model in bfloat16. Needs torch.

Jobs are planned and their prompts are vectors before the clock starts. The loop beside it is black-box tuning's
own: the whole model with a mask and all of its head, a batch for each prompt.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.random_models import CLASSES
from fedbbpt.bench.ptm.shapes import make
from fedbbpt.bench.ptm.turns import Note
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.interfaces import Job
from fedbbpt.types import SoftPrompts, TaskSpec

PART = "device"
TASK = TaskSpec("{prompt} {text} {mask}", CLASSES)
TOKENS = 150
"""Of an input with its prompt and its mask."""
BARS = {"roberta-large": (Bar(0.6), Bar(5))}
FIGURES = "matrix products", "jobs", "jobs / matrix products", "jobs / a prompt at a time"


def measure(device: str, shape: str, workload: Workload, repeats: int, note: Note) -> tuple[Figure, ...]:
    """`device` "cpu" or "cuda"; empty: CUDA's where there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "")
    found = _measure(device, shape, workload, repeats, note) if device else ((),) * len(FIGURES)
    bars = (None, None, *BARS.get(shape, (None, None)))
    return tuple(
        Figure(PART, f"{shape}: {name}", values, unit, bar)
        for name, values, unit, bar in zip(FIGURES, found, ("TFLOP/s", "TFLOP/s", "x", "x"), bars, strict=True)
    )


def _measure(device: str, shape: str, workload: Workload, repeats: int, note: Note) -> tuple[tuple[float, ...], ...]:
    note(f"{device}: matrix products")
    size = 8192 if device == "cuda" else 512
    a, b = torch.randn(2, size, size, dtype=torch.bfloat16, device=device)
    peaks = [2 * size**3 / _seconds(lambda: a @ b, device) / 1e12 for _ in range(repeats + 1)][1:]

    note(f"{device}: {shape}")
    model = make(shape, device)
    words = TOKENS - workload.prompt_tokens - 1
    texts = replace(workload, shortest=words, longest=words).texts()
    rows = model.backend.prepare(TASK, texts, workload.prompt_tokens, None)
    vectors = np.random.default_rng(0).normal(0, 0.02, (workload.prompts, workload.prompt_tokens, model.width))
    prompts, wanted = SoftPrompts(vectors.astype(np.float32)), np.ones((workload.prompts, len(rows)), bool)
    inputs = torch.zeros(len(rows), TOKENS, model.width, dtype=torch.bfloat16, device=device)
    mask = torch.ones(len(rows), TOKENS, dtype=torch.int64, device=device)

    def usual() -> None:
        with torch.inference_mode():
            for _ in range(workload.prompts):
                model.usual(inputs_embeds=inputs, attention_mask=mask).logits[:, -1, :2].tolist()

    rates, gains = [], []
    for _ in range(repeats + 1):
        job = model.backend.job(TASK, prompts, rows, wanted)
        ours = _seconds(partial(_run, job), device)
        gains.append(_seconds(usual, device) / ours)
        rates.append(model.flops(sum(batch.tokens for batch in job.batches), TOKENS) / ours / 1e12)
    rates, gains = rates[1:], gains[1:]  # the first warms up
    return tuple(peaks), tuple(rates), tuple(rate / median(peaks) for rate in rates), tuple(gains)


def _run(job: Job) -> None:
    for batch in job.batches:
        job.run(batch)


def _seconds(call: Callable[[], Any], device: str) -> float:
    started = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
