"""Charts as SVG, drawn here so that a page needs no script and no library, and follows the reader's theme.

Colours are classes that the page's style sheet sets. A point's title is what a browser shows under the pointer.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedbbpt.report.html import Html, element, join

WIDTH, HEIGHT = 760, 250
LEFT, RIGHT, TOP, BOTTOM = 70, 22, 14, 44
"""The margins, which hold the axes' numbers."""
TICKS = 5


@dataclass(frozen=True, slots=True)
class Point:
    """A measured point of a curve."""

    x: float
    y: float
    title: str
    """What the point says, in words."""
    low: float | None = None
    """The lower end of its interval, if it has one."""
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve; `style` is a class of the style sheet."""

    name: str
    style: str
    points: Sequence[Point]


def ticks(low: float, high: float, most: int = TICKS) -> list[float]:
    """Returns about `most` round numbers from `low` to `high`.

    >>> ticks(0, 40)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    span = (high - low) or abs(high) or 1.0
    raw = span / max(1, most - 1)
    scale = 10.0 ** math.floor(math.log10(raw))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * number, 12) for number in range(first, last + 1)]


def line_chart(
    curves: Sequence[Curve],
    *,
    label: str,
    format_y: Callable[[float], str],
    below: Callable[[float], str] = lambda x: "",
    marked: float | None = None,
    marked_text: str = "",
) -> Html:
    """Returns a chart of curves over the rounds.

    Args:
        curves: The curves; one without points is left out.
        label: What the chart shows, for people who cannot see it.
        format_y: Writes a number of the y axis.
        below: Writes a second line under a number of the x axis.
        marked: The round to mark with a vertical line; None marks none.
        marked_text: What is written beside the mark.
    """
    shown = [curve for curve in curves if curve.points]
    points = [point for curve in shown for point in curve.points]
    if not points:
        return Html("")
    ys = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    low, high = min(ys), max(ys)
    space = (high - low or abs(high) or 1.0) * 0.06
    low, high = low - space, high + space
    last = max(point.x for point in points)
    first = min(point.x for point in points)

    def at_x(x: float) -> float:
        return LEFT + (x - first) / ((last - first) or 1.0) * (WIDTH - LEFT - RIGHT)

    def at_y(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts: list[Html] = []
    for tick in ticks(low, high):
        parts.append(element("line", class_="grid", x1=LEFT, x2=WIDTH - RIGHT, y1=at_y(tick), y2=at_y(tick)))
        parts.append(element("text", format_y(tick), class_="axis", x=LEFT - 8, y=at_y(tick) + 4, text_anchor="end"))
    parts.append(_axis_name("round", HEIGHT - BOTTOM + 18))
    if below(first):
        parts.append(_axis_name("queries", HEIGHT - BOTTOM + 34))
    whole = [tick for tick in ticks(first, last, 9) if tick == int(tick)]
    for tick in whole:
        parts.append(_below(str(int(tick)), at_x(tick), HEIGHT - BOTTOM + 18))
        if below(tick):
            parts.append(_below(below(tick), at_x(tick), HEIGHT - BOTTOM + 34))
    if marked is not None:
        x, right = at_x(marked), at_x(marked) > WIDTH / 2
        parts.append(element("line", class_="mark", x1=x, x2=x, y1=TOP, y2=HEIGHT - BOTTOM))
        anchor, shift = ("end", -6) if right else ("start", 6)
        parts.append(
            element("text", marked_text, class_="note", x=x + shift, y=HEIGHT - BOTTOM - 10, text_anchor=anchor)
        )
    parts += [_curve(curve, at_x, at_y) for curve in shown]
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class_": "chart"}
    return element("svg", element("title", label), *parts, **size, role="img")


def _axis_name(text: str, y: float) -> Html:
    return element("text", text, class_="axis name", x=0, y=y)


def _below(text: str, x: float, y: float) -> Html:
    return element("text", text, class_="axis", x=x, y=y, text_anchor="middle")


def _curve(curve: Curve, at_x: Callable[[float], float], at_y: Callable[[float], float]) -> Html:
    parts: list[Html] = []
    banded = [point for point in curve.points if point.low is not None and point.high is not None]
    if len(banded) > 1:
        upper = [(at_x(point.x), at_y(point.high or 0.0)) for point in banded]
        lower = [(at_x(point.x), at_y(point.low or 0.0)) for point in reversed(banded)]
        parts.append(element("polygon", class_=f"band {curve.style}", points=_path([*upper, *lower])))
    places = [(at_x(point.x), at_y(point.y)) for point in curve.points]
    parts.append(element("polyline", class_=f"line {curve.style}", points=_path(places)))
    radius = 3.0 if len(places) <= 60 else 1.8
    for (x, y), point in zip(places, curve.points, strict=True):
        dot = element("circle", cx=x, cy=y, r=radius, class_=f"dot {curve.style}")
        parts.append(element("g", dot, element("title", point.title)))
    return element("g", *parts)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)


def legend(curves: Sequence[Curve]) -> Html:
    """Returns the names of curves with their colours."""
    names = [
        element("span", element("span", class_=f"swatch {curve.style}"), curve.name) for curve in curves if curve.points
    ]
    return element("p", *names, class_="legend")


def interval_bar(value: float, interval: tuple[float, float], low: float, high: float, *, style: str = "") -> Html:
    """Returns a small chart of a value with its interval, on a scale from `low` to `high`."""
    width, height = 140.0, 18.0

    def at(share: float) -> float:
        return 6 + (share - low) / ((high - low) or 1.0) * (width - 12)

    middle = height / 2
    parts = [
        element("line", class_="grid", x1=6, x2=width - 6, y1=middle, y2=middle),
        element("line", class_=f"range {style}", x1=at(interval[0]), x2=at(interval[1]), y1=middle, y2=middle),
        element("circle", class_=f"dot {style}", cx=at(value), cy=middle, r=4.5),
    ]
    return element("svg", join(parts), viewBox=f"0 0 {width:g} {height:g}", class_="interval", aria_hidden="true")
