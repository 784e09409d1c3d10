"""JSON that every parser reads. Python writes NaN and Infinity, which JSON does not have."""

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None, ascii: bool = True) -> str:
    """Returns a value of dicts, lists, tuples, strings and numbers as JSON, with null for numbers that are not finite.

    So a loss that overflowed is null, as one that was not measured. With `ascii`, other characters are escaped, so that
    a terminal of any encoding can show the text.
    """
    return json.dumps(_finite(value), indent=indent, ensure_ascii=ascii, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return value
