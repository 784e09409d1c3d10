"""Tables of the page."""

from collections.abc import Collection, Sequence

from fedbbpt.report.html import Content, Html, element


def table(head: Sequence[str], rows: Sequence[tuple[Sequence[Content], str]], *, left: Collection[int] = ()) -> Html:
    """Returns a table that scrolls sideways where it is too wide.

    Args:
        head: The titles of the columns.
        rows: The cells of each row, and the row's class.
        left: The columns of texts; the others hold numbers.
    """

    def style(column: int) -> str | None:
        return "left" if column in left else None

    titles = [element("th", title, class_=style(column), scope="col") for column, title in enumerate(head)]
    body = [
        element(
            "tr", *(element("td", cell, class_=style(column)) for column, cell in enumerate(cells)), class_=kind or None
        )
        for cells, kind in rows
    ]
    whole = element("table", element("thead", element("tr", *titles)), element("tbody", *body))
    return element("div", whole, class_="scroll")


def facts(rows: Sequence[tuple[str, Content]]) -> Html:
    """Returns a table of names and values."""
    body = [
        element("tr", element("th", name, class_="left", scope="row"), element("td", value, class_="left"))
        for name, value in rows
    ]
    return element("div", element("table", element("tbody", *body), class_="facts"), class_="scroll")
