"""Output as JSON: every number is one that JSON has."""

import json
import math
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.host.json_text import json_text

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def refuse(constant: str) -> NoReturn:
    pytest.fail(f"{constant} is no JSON")


def without_the_rest(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: without_the_rest(entry) for key, entry in value.items()}
    return list(map(without_the_rest, value)) if isinstance(value, list) else value


@given(value=values)
def test_a_value_reads_back_with_null_for_numbers_that_are_not_finite(value: Any) -> None:
    assert json.loads(json_text(value), parse_constant=refuse) == without_the_rest(value)


def test_characters_are_escaped_or_kept() -> None:
    assert json_text({"é": (1, math.inf)}) == '{"\\u00e9": [1, null]}'
    assert json_text({"é": ""}, ascii=False) == '{"é": ""}'
