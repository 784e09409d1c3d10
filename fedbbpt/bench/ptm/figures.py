"""Measured figures, and the limits that they should meet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

from fedbbpt.bench.page import table_line


@dataclass(frozen=True, slots=True)
class Bar:
    """The limit that a figure's median should meet."""

    limit: float
    at_most: bool = False
    """Whether `limit` is a maximum. By default it is a minimum."""

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.limit:g}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A named quantity, measured once or several times."""

    part: str
    """The measurement that it belongs to, one of `suite.PARTS`."""
    name: str
    values: tuple[float, ...]
    """One value for each repeat. Empty if the machine cannot measure it."""
    unit: str = ""
    bar: Bar | None = None

    @property
    def median(self) -> float | None:
        """The median of the values, None if there are none."""
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether the median meets the bar; None without a bar or without values."""
        if self.bar is None or self.median is None:
            return None
        return self.median <= self.bar.limit if self.bar.at_most else self.median >= self.bar.limit

    def record(self) -> dict[str, Any]:
        """Returns the figure as JSON values."""
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
        """Returns the figure as cells of a table with the columns COLUMNS."""
        median = "not measured" if self.median is None else f"{_short(self.median)} {self.unit}".rstrip()
        spread = f"{_short(min(self.values))} to {_short(max(self.values))}" if len(self.values) > 1 else ""
        return self.name, median, spread, str(self.bar or ""), {True: "yes", False: "no", None: ""}[self.met]


COLUMNS = "", "median", "lowest to highest", "bar", "met"
"""Headers of a table of figures. The first is the part's name."""


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table_lines(figures: Sequence[Figure]) -> Iterator[str]:
    """Yields the lines of Markdown tables of the figures, one table for each part."""
    for part, some in groupby(figures, key=lambda figure: figure.part):
        yield from (table_line((part, *COLUMNS[1:])), "|---" + "|--:" * 4 + "|")
        yield from (table_line(figure.cells()) for figure in some)
        yield ""
