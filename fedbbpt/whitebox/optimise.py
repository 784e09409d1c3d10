"""AdamW with linear warm-up and decay, and the same bits each time.

On one thread and with torch's deterministic kernels, so that a client which is killed and starts again finds what it
found before, and a simulation what real processes find.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from fedbbpt.types import Stage


def minimise(parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], stage: Stage) -> list[float]:
    """Changes `parameters` by a fresh optimizer; returns the losses, one a step."""
    optimizer = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, eps=stage.epsilon, weight_decay=stage.weight_decay
    )
    rising = round(stage.warmup * stage.steps)
    rate = get_linear_schedule_with_warmup(optimizer, rising, stage.steps)  # type: ignore[no-untyped-call]  # as above
    losses = []
    for _ in range(stage.steps):
        optimizer.zero_grad()
        current = loss()
        current.backward()  # type: ignore[no-untyped-call]  # torch says nothing of its types
        optimizer.step()
        rate.step()
        losses.append(float(current.detach()))
    return losses


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """What torch computes and draws inside is a function of the seed; the process is as before afterwards."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(strict)
        torch.set_num_threads(threads)
