"""AdamW with linear warm-up and decay, with bit-identical results in each run.

Training runs on one thread and with torch's deterministic kernels. A client that is killed and restarted therefore gets
the same result again, and a simulation gets that of real processes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from fedbbpt.types import Stage


def minimise(parameters: Sequence[nn.Parameter], loss: Callable[[], Tensor], stage: Stage) -> list[float]:
    """Trains `parameters` in place with a new optimizer; returns the loss of each step."""
    optimizer = torch.optim.AdamW(
        parameters, lr=stage.learning_rate, eps=stage.epsilon, weight_decay=stage.weight_decay
    )
    warmup = round(stage.warmup * stage.steps)
    rates = get_linear_schedule_with_warmup(optimizer, warmup, stage.steps)  # type: ignore[no-untyped-call]  # as below
    losses = []
    for _ in range(stage.steps):
        optimizer.zero_grad()
        current = loss()
        current.backward()  # type: ignore[no-untyped-call]  # torch leaves it without types
        optimizer.step()
        rates.step()
        losses.append(float(current.detach()))
    return losses


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Makes torch deterministic inside the block, and its random numbers a function of the seed; restores it after."""
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
