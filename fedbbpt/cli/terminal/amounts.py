"""How commands write amounts: bytes, rates, and the time that is left."""


def size(count: int | None) -> str:
    """Formats a number of bytes for people; "-" if it is unknown."""
    if count is None:
        return "-"
    if count < 10_000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"


def amounts(done: float, total: float | None, unit: str, seconds: float) -> str:
    """Says how much of some work is done, at what rate, and how long the rest takes.

    >>> amounts(300, 1200, "queries", 10.0)
    '300 of 1,200 queries, 30 a second, about 30 s left'

    Args:
        done: How much is done.
        total: How much there is to do; None if that is unknown.
        unit: What is counted; "" for work that is not counted.
        seconds: How long the work has taken so far.
    """
    if not unit:
        return ""
    if unit == "bytes":
        said = size(round(done)) + (f" of {size(round(total))}" if total else "")
    else:
        said = f"{done:,.0f}" + (f" of {total:,.0f}" if total else "") + f" {unit}"
    if seconds < 0.5 or not done:
        return said
    rate = done / seconds
    each = f"{size(round(rate))} a second" if unit == "bytes" else f"{_rate(rate)} a second"
    if rate < 0.5 and unit != "bytes":
        each = f"one in {1 / rate:,.0f} s"
    left = f", about {_time((total - done) / rate)} left" if total and total > done else ""
    return f"{said}, {each}{left}"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
