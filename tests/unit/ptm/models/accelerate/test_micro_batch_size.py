"""The warm-up of a device stops where larger micro-batches gain little, or where memory ends."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fedbbpt.errors import InvalidInput, Overloaded
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import MicroBatch, Scores

torch = pytest.importorskip("torch")

from fedbbpt.ptm.models.accelerate.micro_batch_size import MAX_BUDGET, find_token_budget, split_on_out_of_memory  # noqa: E402


def seconds(overhead: float, memory: int = 2**30) -> Callable[[int], float]:
    """A device that takes so long for whatever it does, and 1 s for 10,000 tokens, of which so many have room."""

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
        (seconds(1e9), MAX_BUDGET),
        (seconds(1e9, memory=10_000), 4096),  # half of the 8 Ki that there was room for
        (seconds(1e9, memory=1024), 1024),
    ],
)
def test_the_budget_ends_where_doubling_does_not_pay(measure: Callable[[int], float], expected: int) -> None:
    assert find_token_budget(measure, first=1024) == expected


def test_a_device_that_is_not_there_is_named(checkpoint: Callable[[str], Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(InvalidInput, match="device cuda"):
        load(str(checkpoint("gpt2")), device="cuda")


@pytest.mark.parametrize("model", ["fake", "clip"])
def test_other_models_have_no_choice(checkpoint: Callable[[str], Path], model: str) -> None:
    with pytest.raises(InvalidInput, match="text models"):
        load("fake" if model == "fake" else str(checkpoint(model)), device="cuda")


@pytest.mark.parametrize("room", [1, 2, 3, 7])
def test_where_memory_ends_a_micro_batch_is_computed_in_parts(room: int) -> None:
    """Kills: scores in another order, pairs that are computed twice or never."""
    asked: list[tuple[int, int]] = []

    def run(batch: MicroBatch) -> Scores:
        if len(batch.rows) > room:
            raise torch.OutOfMemoryError("no room")
        asked.extend(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
        return np.stack([10 * batch.prompts + batch.rows], axis=1).astype(np.float32)

    prompts, rows = np.repeat(np.arange(3), 4)[:11], np.tile(np.arange(4), 3)[:11]
    scores = split_on_out_of_memory(run)(MicroBatch(prompts, rows, 110))
    assert scores[:, 0].tolist() == (10 * prompts + rows).tolist()
    assert asked == list(zip(prompts.tolist(), rows.tolist(), strict=True))


def test_a_pair_that_has_no_room_may_be_asked_again_later() -> None:
    def run(batch: MicroBatch) -> Scores:
        raise torch.OutOfMemoryError("no room")

    with pytest.raises(Overloaded, match="no memory"):
        split_on_out_of_memory(run)(MicroBatch(np.zeros(3, np.int64), np.zeros(3, np.int64), 30))
