"""The table of model types in docs/models.md: what the sweep finds for each type of each family."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.sweep.comparison import Outcome

PAGE = Path(__file__).parents[2] / "docs/models.md"
BEGIN, END = "<!-- The table that `python -m tests.sweep` writes. -->\n", "<!-- End of the table. -->"

RIGHT = "scored as by transformers"
EXCEPTIONS = {"several tokens": "label words of one token only", "vectors": "prompts of tokens and text only"}
"""What a user has to know of a type that is right except for a check that ends in a refusal."""
REASONS = {
    # Refused when the model is loaded.
    "its attention depends on the length": "refused: its attention changes with the length of the input; "
    "`--max-length`, as the message says, may help",
    "per-layer embeddings": "refused: it adds vectors for each token id in every layer",
    "cannot be asked with vectors": "refused: it takes no vectors in place of token ids",
    "no plain table": "refused: its word embeddings are no plain table",
    "differently from the whole model": "refused: its head cannot be separated from its layers",
    "gets other scores than transformers gives": "refused: its head cannot be separated from its layers",
    "cannot be served as": "refused: its code in transformers does not run in parts",
    # Not built.
    "requires the": "not tested: needs a library that is not installed",
    "plain forward": "not tested: a tiny model of it does not run on text alone",
    "scores of all texts": "not tested: its scores on a CPU do not depend on the text",
    "": "not tested: it cannot be made small",
}
"""The first text that occurs in what the sweep finds tells what a user has to know."""


def summarise(outcome: Outcome) -> str:
    """Returns what a user has to know of a type."""
    told = next((outcome.checks[name] for name in ("build", "load") if name in outcome.checks), None)
    if told is not None:
        return next(reason for part, reason in REASONS.items() if part in told)
    limits = [EXCEPTIONS.get(name, name) for name, found in outcome.checks.items() if found != "right"]
    return ", ".join([RIGHT, *dict.fromkeys(limits)])


def write(outcomes: Iterable[Outcome]) -> None:
    """Writes the table into the page."""
    types: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        types.setdefault((outcome.family, summarise(outcome)), []).append(outcome.model_type)
    lines = ["| family | model types (`model_type` in `config.json`) are | which |", "|---|---|---|"]
    for (family, summary), names in sorted(types.items(), key=_order):
        lines.append(f"| `{family}` | {summary} | {', '.join(sorted(names))} |")
    page = PAGE.read_text()
    start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:start] + "\n" + "\n".join(lines) + "\n\n" + page[end:])


def _order(item: tuple[tuple[str, str], list[str]]) -> tuple[str, int, int]:
    (family, summary), names = item
    rank = [RIGHT, "refused", "not tested"]
    return family, next(place for place, kind in enumerate(rank) if summary.startswith(kind)), -len(names)


def documented() -> Mapping[tuple[str, str], str]:
    """Returns what the page tells of each family and type."""
    page = PAGE.read_text()
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \| (.*) \|$", page[page.index(BEGIN) : page.index(END)], re.MULTILINE)
    return {(family, name): summary for family, summary, names in rows for name in names.split(", ")}
