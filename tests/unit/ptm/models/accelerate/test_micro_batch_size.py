"""The size of micro-batches on a device, and splitting when memory is full."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput, Overloaded
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import MicroBatch, Scores

torch = pytest.importorskip("torch")

from fedbbpt.ptm.models.accelerate import micro_batch_size  # noqa: E402
from fedbbpt.ptm.models.accelerate.micro_batch_size import find_token_budget, split_on_out_of_memory  # noqa: E402


def seconds(overhead: float, memory: int = 2**30) -> Callable[[int], float]:
    """Simulates a device that takes `overhead` + 1 s per 10,000 tokens and has memory for `memory` tokens."""

    def measure(tokens: int) -> float:
        if tokens > memory:
            raise torch.OutOfMemoryError("no room")
        return overhead + tokens / 10_000

    return measure


@pytest.mark.parametrize(
    ("measure", "expected"),
    [
        (seconds(0.0), 1024),  # a larger one is not faster
        (seconds(1.0), 512 * 1024),  # twice as many are less than 1 % faster
        (seconds(1e9), micro_batch_size.MAX_MEASURED_TOKENS),
        (seconds(1e9, memory=10_000), 4096),  # half of the 8 Ki that fitted
        (seconds(1e9, memory=1024), 1024),
    ],
)
def test_budget_stops_growing_when_doubling_gains_little_or_memory_is_full(
    measure: Callable[[int], float], expected: int
) -> None:
    assert find_token_budget(measure, first=1024) == expected


def test_unavailable_device_is_named(checkpoint: Callable[[str], Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("the device is available")
    with pytest.raises(InvalidInput, match="device cuda"):
        load(str(checkpoint("gpt2")), device="cuda")


@pytest.mark.parametrize("model", ["fake", "clip"])
def test_other_models_have_no_choice_of_device(checkpoint: Callable[[str], Path], model: str) -> None:
    with pytest.raises(InvalidInput, match="text models"):
        load("fake" if model == "fake" else str(checkpoint(model)), device="cuda")


@pytest.mark.parametrize("room", [1, 2, 3, 7])
def test_micro_batch_that_does_not_fit_is_split(room: int) -> None:
    """Kills: scores in another order, pairs that are computed twice or never."""
    computed: list[tuple[int, int]] = []

    def run(batch: MicroBatch) -> Scores:
        if len(batch.rows) > room:
            raise torch.OutOfMemoryError("no room")
        computed.extend(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
        return np.stack([10 * batch.prompts + batch.rows], axis=1).astype(np.float32)

    prompts, rows = np.repeat(np.arange(3), 4)[:11], np.tile(np.arange(4), 3)[:11]
    scores = split_on_out_of_memory(run)(MicroBatch(prompts, rows, 110))
    assert scores[:, 0].tolist() == (10 * prompts + rows).tolist()
    assert computed == list(zip(prompts.tolist(), rows.tolist(), strict=True))


def test_pair_that_does_not_fit_is_an_overload() -> None:
    def run(batch: MicroBatch) -> Scores:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(Overloaded, match="no memory"):
        split_on_out_of_memory(run)(MicroBatch(np.zeros(3, np.int64), np.zeros(3, np.int64), 30))
