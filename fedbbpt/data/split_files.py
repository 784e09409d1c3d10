"""The files of each split in a folder, by the names that people and the library `datasets` give them."""

import re
from collections.abc import Sequence
from pathlib import Path

from fedbbpt.data.examples import SUFFIXES
from fedbbpt.data.formats import ending_of
from fedbbpt.errors import InvalidData

SPLITS = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""The names of a split's files, without their endings. Some call the dev split validation."""

_SHARD = re.compile(r"(?P<name>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})")
"""A part of a split that is stored in several files, as in train-00000-of-00002.parquet."""


def split_files(folder: Path, split: str) -> Sequence[Path]:
    """Returns the file of a split in a folder, or in its subfolder `data`; several if it is stored in shards.

    Raises:
        InvalidData: There is none, a shard is missing, or there are two versions of the split.
    """
    for place in (folder, folder / "data"):
        if found := _versions(place, split):
            break
    else:
        names = ", ".join(f"{split}.{suffix}" for suffix in SUFFIXES)
        also = [f"{name}.*" for name in SPLITS[split][1:]]
        raise InvalidData(f"no {split} split", where=str(folder), fix=" or ".join([f"one of {names}", *also]))
    if len(found) > 1:
        both = " and ".join(files[0].name for files in found.values())
        raise InvalidData(f"two versions of the {split} split: {both}", where=str(place), fix="remove one of them")
    (files,) = found.values()
    _check_shards(files, split)
    return files


def _versions(folder: Path, split: str) -> dict[tuple[str, str, str], list[Path]]:
    """The files of a split in order, by their name, ending and number of shards, which are the same in all shards."""
    found: dict[tuple[str, str, str], list[Path]] = {}
    for path in sorted(folder.glob("*")):
        stem, dot, ending = path.name.partition(".")
        shard = _SHARD.fullmatch(stem)
        name, count = (shard["name"], shard["count"]) if shard else (stem, "")
        # An ending such as ".bak.csv" is another file.
        if name in SPLITS[split] and dot and ending_of(path.name) == ending.lower().removesuffix(".gz") in SUFFIXES:
            found.setdefault((name, ending, count), []).append(path)
    return found


def _check_shards(files: Sequence[Path], split: str) -> None:
    shards = [shard for path in files if (shard := _SHARD.fullmatch(path.name.partition(".")[0]))]
    if not shards:
        return
    count = int(shards[0]["count"])
    missing = sorted(set(range(count)) - {int(shard["index"]) for shard in shards})
    if missing or len(shards) != count:
        lacking = f"number {missing[0]:05d} is missing" if missing else f"there are {len(shards)}"
        what = f"the {split} split has {count} shards, of which {lacking}"
        raise InvalidData(
            what, where=str(files[0].parent), fix=f"all of {shards[0]['name']}-00000-of-{count:05d} and so on"
        )
