"""Data sets of the Hugging Face hub, named as `owner/name[:config][@split]`; the split is train unless named."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fedbbpt.data.columns import Columns
from fedbbpt.data.parquet import with_class_names
from fedbbpt.errors import InvalidData, first_line
from fedbbpt.host.extras import needs_extra

_DATASET = re.compile(r"(?P<name>[\w-][\w.-]*(/[\w.-]+)?)(:(?P<config>[\w.-]+))?(@(?P<split>[\w.\[\]:%-]+))?")
_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")
"""The ending of a file's name, as opposed to that of a version, such as v1.1."""


def may_name_dataset(source: str) -> bool:
    """Says whether a source can be a data set's name. What looks like a path on this machine is never sent to the hub.

    A path has an ending such as .txt, begins with a dot or a slash, or begins with a folder that exists here.
    """
    named = _DATASET.fullmatch(source)
    if named is None or Path(source).exists():
        return False
    name = named["name"]
    owner, slash, _ = name.partition("/")
    return not _FILE.search(name) and not (slash and Path(owner).exists())


def rows(source: str, columns: Columns) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields each row's place, such as "owner/name:17", and its values by column, with the names of its classes.

    Raises:
        InvalidData: The hub has no such data set or does not answer, or the data set lacks a column.
    """
    named = _DATASET.fullmatch(source)
    assert named is not None, "the caller has asked may_name_dataset"
    with needs_extra("data", where=source):
        import datasets  # slow to import
    try:
        dataset = datasets.load_dataset(named["name"], named["config"], split=named["split"] or "train")
    except Exception as error:  # The hub's client raises the errors of many libraries, and documents none.
        raise InvalidData(
            f"no such file, and no such dataset on the hub: {first_line(error)}",
            where=source,
            fix="an existing file, or owner/name:config@split with a connection to the hub",
        ) from error
    columns.check(dataset.features, source)
    names = {column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")}
    for number, record in enumerate(dataset, start=1):
        yield f"{source}:{number}", with_class_names(record, names)
