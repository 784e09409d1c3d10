"""HTML whose texts are always escaped: an element takes texts and other elements, and only these are taken as HTML."""

from collections.abc import Iterable
from html import escape
from typing import TypeAlias

_VOID = frozenset({"meta", "br", "line", "circle", "rect", "path", "polyline", "polygon"})
"""Elements without content."""


class Html(str):
    """A piece of HTML. Only `element` and `join` make it, from texts that they escape."""


Content: TypeAlias = Html | str | int | float | None
"""What an element may contain. All but `Html` is escaped; None is left out."""


def element(name: str, /, *content: Content, **attributes: str | int | float | None) -> Html:
    """Returns an element.

    >>> element("td", "a < b", class_="text", colspan=2)
    '<td class="text" colspan="2">a &lt; b</td>'

    Args:
        name: The element's name.
        content: Its texts and elements.
        attributes: Its attributes; a name may end in an underscore, and has underscores for hyphens. None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Html(f"<{name}{given}>" if name in ("meta", "br") else f"<{name}{given}/>")
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def join(content: Iterable[Content]) -> Html:
    """Returns pieces one after the other, with all texts escaped."""
    return Html(
        "".join(part if isinstance(part, Html) else escape(_text(part)) for part in content if part is not None)
    )


def _text(value: Content) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
