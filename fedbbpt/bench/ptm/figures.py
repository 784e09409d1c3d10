"""What was measured, and what it should be."""

from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Bar:
    limit: float
    at_most: bool = False
    """Else at least."""

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """`values` has one for each repeat, and is empty where nothing was measured."""

    part: str
    name: str
    values: tuple[float, ...]
    unit: str = ""
    bar: Bar | None = None

    @property
    def median(self) -> float | None:
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """None where there is no bar, or no measurement."""
        if self.bar is None or self.median is None:
            return None
        return self.median <= self.bar.limit if self.bar.at_most else self.median >= self.bar.limit

    def record(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "values": list(self.values),
            "bar": None if self.bar is None else str(self.bar),
            "met": self.met,
        }

    def cells(self) -> tuple[str, ...]:
        """Under COLUMNS."""
        median = "not measured" if self.median is None else f"{_short(self.median)} {self.unit}".rstrip()
        spread = f"{_short(min(self.values))} to {_short(max(self.values))}" if len(self.values) > 1 else ""
        return self.name, median, spread, str(self.bar or ""), {True: "yes", False: "no", None: ""}[self.met]


COLUMNS = "", "median", "lowest to highest", "bar", "met"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
