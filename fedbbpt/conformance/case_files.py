"""Reads cases from TOML files: each file in a kit's folder `cases` is a profile, and each table in it a case."""

import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any, TypeVar

from fedbbpt.errors import InvalidInput
from fedbbpt.toml.section import Section


class CaseOfAKit(Section):
    """One claim, and how it is tested."""

    name: str
    profile: str
    claim: str


C = TypeVar("C", bound=CaseOfAKit)


def profiles(package: str) -> tuple[str, ...]:
    """Returns the names of all profiles of a kit, whose folder `cases` is in `package`."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _files(package)))


def read(package: str, kind: type[C], wanted: Sequence[str]) -> tuple[C, ...]:
    """Returns the cases of these profiles, in the files' order. Raises InvalidInput for an unknown profile."""
    known = {file.name.removesuffix(".toml"): file for file in _files(package)}
    found: list[C] = []
    for profile in wanted:
        if profile not in known:
            raise InvalidInput(
                f"unknown profile {profile!r}", where="--profile", fix=f"one of {', '.join(sorted(known))}"
            )
        tables = tomllib.loads(known[profile].read_text(encoding="utf-8"))
        found += [kind(name=f"{profile}/{name}", profile=profile, **table) for name, table in tables.items()]
    return tuple(found)


def _files(package: str) -> Sequence[Any]:
    return [file for file in resources.files(package).joinpath("cases").iterdir() if file.name.endswith(".toml")]
