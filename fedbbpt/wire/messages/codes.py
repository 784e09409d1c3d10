"""Enumerations of the protos <-> ours, by tables."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedbbpt.errors import InvalidRequest

C = TypeVar("C")
N = TypeVar("N")


def read_code(table: Mapping[N, C], code: C, where: str) -> N:
    for noun, known in table.items():
        if known == code:
            return noun
    raise InvalidRequest(f"{code} is unknown", where=where, fix=f"one of {sorted(map(str, table.values()))}")


def known(table: Mapping[N, C], codes: Sequence[C]) -> frozenset[N]:
    """Those that are known here: a newer service may offer more."""
    return frozenset(noun for noun, code in table.items() if code in codes)
