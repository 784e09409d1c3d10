"""The whole page of a run, and the part of it that a notebook shows."""

from datetime import UTC, datetime
from importlib.resources import files

import fedbbpt
from fedbbpt.report import background, results
from fedbbpt.report.html import Html, element, join
from fedbbpt.report.run_data import RunData


def page(run: RunData, now: datetime | None = None) -> str:
    """Returns the page: one HTML document that loads nothing from elsewhere.

    Args:
        run: The run.
        now: The time to name at its end; None: the present.
    """
    card = run.card
    title = f"{card.run}: {card.method} on {card.ptm}"
    sections = {
        "Result": join([results.headline(run), results.controls(run)]),
        "Learning curve": results.curves(run),
        "Confusion": results.confusions(run),
        "Wrong answers": results.errors(run),
        "Prompt": background.prompt(run),
        "Cost": background.cost(run),
        "Run": background.about(run),
        "Privacy": background.privacy(run),
        "Warnings about the data": background.warnings(run),
        "Settings": background.settings(run),
    }
    names = {name: name.lower().replace(" ", "-") for name in sections}
    links = [element("a", name, href=f"#{names[name]}") for name in sections]
    body = [element("section", element("h2", name), part, id=names[name]) for name, part in sections.items()]
    made = (now or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M UTC")
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        element("title", title),
        style(),
    ]
    whole = element(
        "main",
        element(
            "header", element("h1", card.run), element("p", _subtitle(run), class_="muted"), element("nav", *links)
        ),
        *body,
        element("footer", f"Written by fedbbpt {fedbbpt.__version__}, {made}.", class_="muted"),
        class_="fedbbpt",
    )
    return "<!doctype html>\n" + element("html", element("head", *head), element("body", whole), lang="en") + "\n"


def fragment(run: RunData) -> str:
    """Returns the part of the page that a notebook shows: the result, its controls, and the learning curve."""
    parts = [element("h3", run.card.run), results.headline(run), results.controls(run), results.curves(run)]
    return join([style(), element("div", *parts, class_="fedbbpt")])


def style() -> Html:
    """Returns the style sheet."""
    return Html(f"<style>{files('fedbbpt.report').joinpath('style.css').read_text(encoding='utf-8')}</style>")


def _subtitle(run: RunData) -> str:
    card = run.card
    return (
        f"{card.clients} clients with {card.examples:,} training examples tuned {card.ptm} with {card.method}, "
        "without its weights and without sharing their data."
    )
