"""The command `predict`: classifies inputs with a tuned prompt."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import InputColumns, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import out, show, warned
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.cli.terminal.model import open_card
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.columns import Columns
from fedbbpt.data.images import SUFFIX as IMAGES
from fedbbpt.data.images import read_unlabelled
from fedbbpt.data.inputs import (
    InputFormat,
    Named,
    batches,
    file_rows,
    named_texts,
    predicted,
    prediction_file,
    stream_rows,
)
from fedbbpt.data.quality import TextReview, cut_texts
from fedbbpt.errors import InvalidData, InvalidInput
from fedbbpt.federation.prediction import probabilities
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.host.printable import printable
from fedbbpt.host.progress import progress
from fedbbpt.types import Examples

_BATCH = 256
"""Inputs that are in memory at a time."""

STDIN = "-"

PromptFile = Annotated[
    Path, typer.Option("--prompt", metavar="FILE", help="The tuned prompt: prompt.safetensors of a run.")
]


@with_bundles
def predict(
    prompt: PromptFile,
    service: PtmAccess,
    model: ModelOptions,
    names: InputColumns,
    text: Annotated[list[str] | None, typer.Option(help="A text to classify. Repeat it for more texts.")] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="The second text of an input. Give one for each --text.")
    ] = None,
    data: Annotated[
        str, typer.Option(metavar="PATH", help="A file with inputs: CSV, JSONL, Parquet; or - for standard input.")
    ] = "",
    stdin_format: Annotated[
        InputFormat, typer.Option(help="What --data - reads: one text on each line, CSV or JSONL.")
    ] = InputFormat.LINES,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="A file with images to classify in its array x.", show_default=False),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE",
            help="File for the predictions, .csv or .jsonl, with the probability of every class.",
            show_default=False,
        ),
    ] = None,
    model_name: options.CardModel = "",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    json: options.Json = False,
) -> None:
    """Classify texts or images with a tuned prompt, on a PTM service or on the model loaded into this process.

    Example: fedbbpt predict --prompt run/prompt.safetensors --data questions.csv --out answers.csv
    """
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    inputs, count = _inputs(text or [], text_pair or [], images, data, stdin_format, names.columns())
    results: list[dict[str, Any]] = []
    labels, texts = Counter[str](), TextReview()
    with ExitStack() as resources:
        write = None
        if out_file is not None:
            write = resources.enter_context(prediction_file(out_file, card.labels, force=force))
        with progress("loading the model"):
            ptm = resources.enter_context(open_card(card, service, model, model_name))
            scorer = PromptScorer(ptm, card.task(), card.space)
        # A bar would be torn apart by the tables, and must not redirect them to standard error.
        asking = progress("asking the model", count, "inputs") if out_file or json else nullcontext(_silent)
        advance = resources.enter_context(asking)
        for examples, named in inputs:
            texts.add(examples)
            likely = probabilities(scorer, z, examples)
            labels.update(card.labels[best] for best in likely.argmax(axis=1))
            if write is not None:
                write(named, likely)
            elif json:
                results += predicted(named, likely, card.labels)
            else:
                out.print(_table(list(predicted(named, likely, card.labels)), card.labels, first=not results))
                results = results or [{}]
            advance(len(examples))
        cut = cut_texts(scorer.truncation, labels.total(), scorer.card.max_tokens)
    warnings = warned([*texts.warnings(), *cut])
    listed = {"warnings": list(map(asdict, warnings))} if json else {}
    if out_file is not None:
        shown = {
            "out": str(out_file),
            "inputs": labels.total(),
            "predicted": {name: labels[name] for name in card.labels},
        }
        show(shown | listed, json)
    elif json:
        show({"predictions": results} | listed, as_json=True)


def _silent(amount: float) -> None:
    """Shows no progress."""


def _inputs(
    text: list[str], text_pair: list[str], images: Path | None, data: str, stdin_format: InputFormat, columns: Columns
) -> tuple[Iterator[tuple[Examples, Named]], int | None]:
    """Returns the inputs in batches, and their number if it is known."""
    if bool(text) + (images is not None) + bool(data) != 1:
        what = "give texts, a file or images" + (", and not two of them" if text or images or data else "")
        raise InvalidInput(what, where="--text, --data, --images", fix="one of the three options")
    if text_pair and len(text_pair) != len(text):
        what = f"{len(text_pair)} second texts for {len(text)} texts"
        raise InvalidInput(what, where="--text-pair", fix="one --text-pair for each --text")
    if text:
        return iter([(Examples(tuple(text), tuple(text_pair) or None), named_texts(text, text_pair))]), len(text)
    if data.endswith(f".{IMAGES}"):
        images = Path(data)
    if images is not None:
        examples = read_unlabelled(images)
        named = [{"image": f"{images.name}:{row}"} for row in range(len(examples))]
        return iter([(examples, named)]), len(examples)
    if data == STDIN:
        stdin = cast(Any, sys.stdin.buffer)  # typed as a BinaryIO, which has no `peek`
        name = "standard input"
        return batches(stream_rows(stdin, name, stdin_format, columns), _BATCH, name), None
    with progress("reading the data"):
        # A long file must not fail in its last row, after all others were paid for.
        count = sum(1 for _ in file_rows(data, columns))
    if not count:
        raise InvalidData("no examples", where=data, fix="at least one row")
    return batches(file_rows(data, columns), _BATCH, data), count


def _table(predictions: list[dict[str, Any]], labels: tuple[str, ...], *, first: bool) -> Table:
    """The predictions of one batch. All batches have the same columns, and the first one a header."""
    kinds = [name for name in predictions[0] if name not in ("label", "probability", "probabilities")]
    table = Table(box=None, header_style="dim", show_header=first)
    table.add_column("label", min_width=max(5, *map(len, labels)))
    table.add_column("probability", min_width=11)
    for kind in kinds:
        table.add_column(kind)
    for found in predictions:
        label, *inputs = map(
            printable, (found["label"], *(found[kind] for kind in kinds))
        )  # before widths are measured
        table.add_row(label, f"{found['probability']:.3f}", *inputs)
    return table
