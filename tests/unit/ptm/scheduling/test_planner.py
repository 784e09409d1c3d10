"""The planner: every pair once, equal lengths, within the budget."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import PromptTooLong
from fedbbpt.ptm.scheduling.planner import plan

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def everything(prompts: list[int], rows: list[int]) -> npt.NDArray[np.bool_]:
    return np.ones((len(prompts), len(rows)), bool)


@given(lengths, lengths, st.integers(1, 200), st.integers(0, 3), st.integers(0, 2**32))
def test_every_wanted_pair_is_planned_once_at_its_length(
    prompts: list[int], rows: list[int], budget: int, suffix: int, seed: int
) -> None:
    """Kills: dropping the last part; grouping by the row's length alone; a budget in pairs; shared prefixes of
    different lengths in one micro-batch."""
    draw = np.random.default_rng(seed)
    wanted = draw.random((len(prompts), len(rows))) < 0.7
    shared = np.minimum(draw.integers(0, 3, wanted.shape) * 5, np.add.outer(prompts, rows))
    seen: list[tuple[int, int]] = []
    for batch in plan(prompts, rows, wanted, max_tokens=60, token_budget=budget, shared=shared, suffix=suffix):
        pairs = list(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
        ((length, begun),) = {(prompts[p] + rows[b], int(shared[p, b])) for p, b in pairs}
        assert batch.tokens == (length - begun + suffix) * len(pairs)
        assert batch.tokens <= budget or len(pairs) == 1
        seen += pairs
    assert sorted(seen) == [tuple(pair) for pair in np.argwhere(wanted).tolist()]


def test_micro_batches_of_one_length_are_nearly_equal() -> None:
    batches = plan([2] * 3, [8] * 7, everything([2] * 3, [8] * 7), max_tokens=10, token_budget=100)
    assert [len(batch.rows) for batch in batches] == [7, 7, 7]


def test_too_long_pair_is_named() -> None:
    prompts, rows = [1, 5], [3, 4, 6]
    with pytest.raises(PromptTooLong, match=r"prompts\[1\], examples\[2\]"):
        plan(prompts, rows, everything(prompts, rows), max_tokens=10, token_budget=100)
    wanted = everything(prompts, rows)
    wanted[1, 2] = False
    plan(prompts, rows, wanted, max_tokens=10, token_budget=100)
