"""Choice of the parameters that `make test` runs; `make test-all` runs the others, which are marked as slow."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_except(values: Iterable[Any], *brief: Any) -> list[Any]:
    """Returns `values` as parameters of a test: `brief` as they are, the others marked as slow."""
    chosen = list(values)
    assert all(value in chosen for value in brief), f"{brief} are not all among {chosen}"
    return [value if value in brief else _slow(value) for value in chosen]


def _slow(value: Any) -> Any:
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
