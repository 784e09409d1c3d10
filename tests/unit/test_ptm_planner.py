"""The planner: every pair once, equal lengths, within the budget."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import PromptTooLong
from fedbbpt.ptm.planner import plan

lengths = st.lists(st.integers(0, 30), min_size=1, max_size=12)


@given(lengths, lengths, st.integers(1, 200))
def test_every_pair_is_planned_once_at_its_length(prompts: list[int], rows: list[int], budget: int) -> None:
    """Kills: a last part that is dropped; groups by the row's length alone; a budget in pairs."""
    seen: list[tuple[int, int]] = []
    for batch in plan(prompts, rows, max_tokens=60, token_budget=budget):
        pairs = list(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
        assert {prompts[p] + rows[b] for p, b in pairs} == {batch.length}
        assert batch.tokens == batch.length * len(pairs) and (batch.tokens <= budget or len(pairs) == 1)
        seen += pairs
    assert sorted(seen) == list(np.ndindex(len(prompts), len(rows)))


def test_parts_of_a_group_are_nearly_equal() -> None:
    sizes = [len(batch.rows) for batch in plan([2] * 3, [8] * 7, max_tokens=10, token_budget=100)]
    assert sizes == [7, 7, 7]


def test_what_exceeds_the_model_is_named() -> None:
    with pytest.raises(PromptTooLong, match=r"prompts\[1\], examples\[2\]"):
        plan([1, 5], [3, 4, 6], max_tokens=10, token_budget=100)
