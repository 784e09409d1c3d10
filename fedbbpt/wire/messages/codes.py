"""Converts enumerations between `fedbbpt.types` and the protos, by tables."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from fedbbpt.errors import FedbbptError, InvalidRequest

C = TypeVar("C")
N = TypeVar("N")


def read_code(table: Mapping[N, C], code: C, where: str, error: type[FedbbptError] = InvalidRequest) -> N:
    """Returns the member of `table` with this code. Raises `error` if there is none."""
    for member, known_code in table.items():
        if known_code == code:
            return member
    raise error(f"{code} is unknown", where=where, fix=f"one of {sorted(map(str, table))}")


def known(table: Mapping[N, C], codes: Sequence[C]) -> frozenset[N]:
    """Returns the members of `table` with these codes, and ignores unknown codes: a newer service may offer more."""
    return frozenset(member for member, code in table.items() if code in codes)
