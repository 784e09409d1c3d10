"""Options that several commands share, one by one. `bundles` groups those that always come together."""

from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.errors import InvalidInput, reason

SECURITY, DATA, MODEL = "Security", "Columns of the data", "The model, where this command loads it"
"""Headings under which help texts list options."""

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.toml", help="The job file. `fedbbpt init` writes one.")]
RunName = Annotated[
    str,
    typer.Option(
        "--run", metavar="NAME", help="The name of the run, if the coordinator has several.", show_default=False
    ),
]
CardModel = Annotated[
    str,
    typer.Option(
        "--model",
        metavar="NAME",
        help="The model to load in place of the one on the prompt's card. A model on another server must be named.",
        show_default=False,
        rich_help_panel=MODEL,
    ),
]
SendLabels = Annotated[
    bool,
    typer.Option(
        "--send-labels-to-ptm",
        help="Send the labels to the PTM service if it returns losses only, for which it needs them.",
        rich_help_panel=SECURITY,
    ),
]
RunFolder = Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder for all files of the run.")]


def read_token(path: Path | None) -> str:
    """Returns the token in the first line of a file that is not blank, or "" without a file. Raises InvalidInput."""
    if path is None:
        return ""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(reason(error), where=str(path), fix="a text file with the token in its first line") from None
    if not lines:
        raise InvalidInput("the file holds no token", where=str(path), fix="one line")
    return lines[0]
