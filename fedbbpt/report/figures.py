"""How the page writes numbers, and how tables of results write accuracies."""

from collections.abc import Sequence


def percent(share: float | None) -> str:
    """Writes a share, such as an accuracy; "-" if it is unknown."""
    return "-" if share is None else f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Writes a difference of two accuracies, in points."""
    return f"{100 * difference:+.1f}"


def percent_range(interval: Sequence[float] | None) -> str:
    """Writes the interval of an accuracy."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"


def points_range(interval: Sequence[float] | None) -> str:
    """Writes the interval of a gain."""
    return "" if interval is None else f"{100 * interval[0]:+.1f} to {100 * interval[1]:+.1f}"


def decimal(value: float | None, places: int = 3) -> str:
    """Writes a loss; "-" if it is unknown."""
    return "-" if value is None else f"{value:.{places}f}"


def number(value: int | None) -> str:
    """Writes a count."""
    return "not counted" if value is None else f"{value:,}"


def size(count: float | None) -> str:
    """Writes a number of bytes."""
    if count is None:
        return "not counted"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor * 10 or (unit == "kB" and count >= factor):
            return f"{count / factor:,.1f} {unit}"
    return f"{count:.0f} B"


def short(count: float) -> str:
    """Writes a count under an axis.

    >>> short(1234567), short(45200), short(310)
    ('1.2M', '45k', '310')
    """
    if count >= 1e6:
        return f"{count / 1e6:.1f}M"
    return f"{count / 1e3:.0f}k" if count >= 1e4 else f"{count:.0f}"


def duration(seconds: float) -> str:
    """Writes a time."""
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
