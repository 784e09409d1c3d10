"""Rows of Parquet files, with the names of their classes.

The library `datasets` stores classes as numbers and their names in the schema's metadata (ClassLabel). pandas stores
categories as a dictionary, which Arrow resolves.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fedbbpt.data.columns import Columns
from fedbbpt.errors import InvalidData, first_line
from fedbbpt.host.extras import needs_extra

_ROWS = 1024
"""Rows that are decoded at a time."""


def rows(path: Path, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each row's place, such as "trec.parquet:17", and the values of its wanted columns.

    Raises:
        InvalidData: The file is damaged or no Parquet file, or lacks a column.
    """
    with needs_extra("data", where=path.name):
        import pyarrow  # slow to import
        import pyarrow.parquet
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            columns.check(schema.names, str(path))
            # Other columns may be large: pictures, embeddings.
            wanted = [name for name in columns.names() if name in schema.names]
            names = _class_names(schema.metadata or {}, wanted)
            number = 0
            for batch in file.iter_batches(_ROWS, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:{number}", with_class_names(record, names)
    except (pyarrow.ArrowException, ValueError, OverflowError) as error:
        # Values that Python cannot represent raise the others: text that is not UTF-8, dates after the year 9999.
        raise InvalidData(f"not readable as Parquet: {first_line(error)}", where=str(path)) from None


def with_class_names(record: dict[str, Any], names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Returns a row with the name of each class in place of its number; `names` are the classes by column."""
    named = {
        column: known[record[column]]
        for column, known in names.items()
        if isinstance(record.get(column), int) and 0 <= record[column] < len(known)
    }
    return {**record, **named}


def _class_names(metadata: Mapping[bytes, bytes], wanted: Sequence[str]) -> dict[str, list[str]]:
    """The names of the classes that `datasets` wrote into the metadata of the schema, by column."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        found = {column: features[column].get("names") for column in wanted if column in features}
    except (ValueError, AttributeError, TypeError):
        return {}  # Metadata of another program under the same key.
    return {
        column: names
        for column, names in found.items()
        if isinstance(names, list) and all(isinstance(name, str) for name in names)
    }
