"""What a tuned prompt is for: `predict` and `evaluate`."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from fedbbpt.cli import options
from fedbbpt.cli.console import err, log_to_stderr, out, show
from fedbbpt.cli.models import open_ptm
from fedbbpt.data.examples import Columns, read
from fedbbpt.errors import InvalidInput
from fedbbpt.evaluation import measured, score_z
from fedbbpt.prompt_file import read_prompt
from fedbbpt.types import Examples, LabelledExamples

_PATIENCE = 5.0
"""Seconds; somebody sits and waits."""

Prompt = Annotated[Path, typer.Option(help="The prompt.safetensors of a run.")]


def predict(
    prompt: Prompt,
    text: Annotated[list[str], typer.Option(help="An input to classify; may be given several times.")],
    text_pair: Annotated[list[str] | None, typer.Option(help="Its second input; once for each --text.")] = None,
    ptm: options.Ptm = "",
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_token_file: options.PtmToken = None,
    json: options.Json = False,
) -> None:
    """Classify texts with a tuned prompt, by a PTM service or by the model loaded here."""
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    if text_pair and len(text_pair) != len(text):
        raise InvalidInput(f"{len(text_pair)} for {len(text)} texts", where="--text-pair", fix="one for each --text")
    examples = Examples(tuple(text), tuple(text_pair) if text_pair else None)
    tls, token = options.client_tls(ptm_tls_ca), options.read_token(ptm_token_file)
    with (
        err.status("asking the model"),
        open_ptm(ptm, card.ptm, revision=card.ptm_revision, tls=tls, token=token, patience_seconds=_PATIENCE) as box,
    ):
        data = LabelledExamples(examples, np.zeros(len(text), np.int64))
        space = card.space(len(z))
        scores = score_z(box, box.register_task(card.task()), space, z, data)[0].astype(np.float64)
    likely = np.exp(scores - scores.max(axis=1, keepdims=True))
    likely /= likely.sum(axis=1, keepdims=True)
    predictions = [
        {"text": one, "label": card.labels[int(p.argmax())], "probability": float(p.max())}
        for one, p in zip(text, likely, strict=True)
    ]
    if json:
        show({"predictions": predictions}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    for name in ("label", "probability", "text"):
        table.add_column(name)
    for found in predictions:
        table.add_row(str(found["label"]), f"{found['probability']:.3f}", str(found["text"]))
    out.print(table)


def evaluate(
    prompt: Prompt,
    data: Annotated[str, typer.Option(help="Labelled examples: JSONL, CSV, Parquet, or a Hugging Face name.")],
    ptm: options.Ptm = "",
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = "text_pair",
    label_column: options.LabelColumn = "label",
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_token_file: options.PtmToken = None,
    json: options.Json = False,
) -> None:
    """Measure a tuned prompt on labelled examples."""
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    examples = read(data, card.labels, Columns(text_column, pair_column, label_column))
    tls, token = options.client_tls(ptm_tls_ca), options.read_token(ptm_token_file)
    with (
        err.status("asking the model"),
        open_ptm(ptm, card.ptm, revision=card.ptm_revision, tls=tls, token=token, patience_seconds=_PATIENCE) as box,
    ):
        space = card.space(len(z))
        scores = score_z(box, box.register_task(card.task()), space, z, examples)
    whole = measured(scores, examples)
    right = scores[0].argmax(axis=1) == examples.labels
    rows = {name: examples.labels == index for index, name in enumerate(card.labels)}
    result: dict[str, Any] = {
        "accuracy": whole.accuracy,
        "loss": whole.loss,
        "examples": len(examples),
        "accuracy_by_class": {name: float(right[mine].mean()) for name, mine in rows.items() if mine.any()},
    }
    show(result, json)
