"""`fedbbpt report`: the page of a finished run."""

import logging
import webbrowser
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.errors import InvalidInput
from fedbbpt.host.files import atomic_write
from fedbbpt.host.progress import progress
from fedbbpt.report.page import page
from fedbbpt.report.run_data import RunData
from fedbbpt.report.words import nearest_words

PAGE = "report.html"


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a finished run.")],
    out_file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The file to write. By default report.html in the folder."),
    ] = None,
    no_texts: Annotated[
        bool,
        typer.Option(
            "--no-texts", help="Leave out the texts of wrong answers, which the page shows if the data is still there."
        ),
    ] = False,
    words: Annotated[
        bool,
        typer.Option(
            "--words",
            help="Load the model on this machine, and show the words nearest to each vector of a soft prompt.",
        ),
    ] = False,
    model_name: options.CardModel = "",
    open_it: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    json: options.Json = False,
) -> None:
    """Write one self-contained HTML page of a finished run: curve, controls, errors, cost, settings, privacy.

    Example: fedbbpt report run --open
    """
    log_to_stderr(logging.WARNING)
    path = out_file or folder / PAGE
    with progress("reading the run"):
        run = RunData.of_folder(folder, texts=not no_texts)
    if words:
        with progress("loading the model"):
            run = replace(run, words=nearest_words(run, model_name))
    try:
        atomic_write(path, page(run))
    except OSError as error:
        fix = "a file in a folder that exists and can be written"
        raise InvalidInput(error.strerror or str(error), where=str(path), fix=fix) from None
    if json:
        show({"page": str(path)}, as_json=True)
    else:
        out.print(f"wrote {path}", soft_wrap=True)
    if open_it and not webbrowser.open(path.resolve().as_uri()):
        err.print(f"no browser was found; open {path} yourself", soft_wrap=True)
