"""What was measured, as numbers of one run, and what it should be."""

from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Bar:
    limit: float
    at_most: bool = False
    """Else at least."""

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}"


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
        """For a table: name, median, the lowest and the highest, unit, bar, and whether it is met."""
        if self.median is None:
            return self.name, "not measured", "", self.unit, str(self.bar or ""), ""
        spread = f"{number(min(self.values))} to {number(max(self.values))}" if len(self.values) > 1 else ""
        met = {True: "yes", False: "no", None: ""}[self.met]
        return self.name, number(self.median), spread, self.unit, str(self.bar or ""), met


COLUMNS = ("", "median", "lowest to highest", "unit", "bar", "met")


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
