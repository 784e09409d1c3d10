"""What a tuned prompt is for: `predict` and `evaluate`."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedbbpt.api.prompts import TunedPrompt
from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, log_to_stderr, out, show
from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.examples import Columns, read
from fedbbpt.data.images import read_unlabelled
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.prompt_file import PromptCard, read_prompt
from fedbbpt.interfaces import Ptm
from fedbbpt.types import Examples
from fedbbpt.wire.tls import ClientTls

_PATIENCE = 5.0
"""Seconds; somebody sits and waits."""


def _open(address: str, card: PromptCard, tls: ClientTls | None, token: str) -> AbstractContextManager[Ptm]:
    """The service at `address`, or the card's model loaded here as the run had it."""
    revision, precision = card.ptm_revision, card.ptm_precision
    return open_ptm(
        card.ptm,
        address=address,
        revision=revision,
        precision=precision,
        tls=tls,
        token=token,
        patience_seconds=_PATIENCE,
    )


Prompt = Annotated[Path, typer.Option(help="The prompt.safetensors of a run.")]


def predict(
    prompt: Prompt,
    text: Annotated[list[str] | None, typer.Option(help="An input to classify; may be given several times.")] = None,
    text_pair: Annotated[list[str] | None, typer.Option(help="Its second input; once for each --text.")] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", help="Images to classify, in its array x.", show_default=False)
    ] = None,
    ptm: options.Ptm = "",
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_client_cert: options.PtmClientCert = None,
    ptm_client_key: options.PtmClientKey = None,
    ptm_token_file: options.PtmToken = None,
    json: options.Json = False,
) -> None:
    """Classify texts or images with a tuned prompt, by a PTM service or by the model loaded here."""
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    examples, names = _inputs(text or [], text_pair or [], images)
    tls = options.client_tls(ptm_tls_ca, ptm_client_cert, ptm_client_key, ptm=True)
    token = options.read_token(ptm_token_file)
    with (
        err.status("asking the model"),
        _open(ptm, card, tls, token) as box,
    ):
        likely = TunedPrompt(z, card).predict(examples, box)
    kind = "text" if images is None else "image"
    predictions = [
        {kind: one, "label": found.label, "probability": found.probability}
        for one, found in zip(names, likely, strict=True)
    ]
    if json:
        show({"predictions": predictions}, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    for name in ("label", "probability", kind):
        table.add_column(name)
    for found in predictions:
        table.add_row(str(found["label"]), f"{found['probability']:.3f}", str(found[kind]))
    out.print(table)


def _inputs(text: list[str], text_pair: list[str], images: Path | None) -> tuple[Examples, list[str]]:
    """The examples, and what to call each."""
    if bool(text) == (images is not None):
        raise InvalidInput("neither texts nor images, or both", where="--text", fix="--text, or --images")
    if text_pair and len(text_pair) != len(text):
        raise InvalidInput(f"{len(text_pair)} for {len(text)} texts", where="--text-pair", fix="one for each --text")
    if images is None:
        return Examples(tuple(text), tuple(text_pair) or None), text
    examples = read_unlabelled(images)
    return examples, [f"{images.name}:{row}" for row in range(len(examples))]


def evaluate(
    prompt: Prompt,
    data: Annotated[
        str, typer.Option(help="Labelled examples: JSONL, CSV, Parquet, .npz of images, or a Hugging Face name.")
    ],
    ptm: options.Ptm = "",
    text_column: options.TextColumn = "text",
    pair_column: options.PairColumn = "text_pair",
    label_column: options.LabelColumn = "label",
    ptm_tls_ca: options.PtmTlsCa = None,
    ptm_client_cert: options.PtmClientCert = None,
    ptm_client_key: options.PtmClientKey = None,
    ptm_token_file: options.PtmToken = None,
    json: options.Json = False,
) -> None:
    """Measure a tuned prompt on labelled examples."""
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    examples = read(data, card.labels, Columns(text_column, pair_column, label_column))
    tls = options.client_tls(ptm_tls_ca, ptm_client_cert, ptm_client_key, ptm=True)
    token = options.read_token(ptm_token_file)
    with (
        err.status("asking the model"),
        _open(ptm, card, tls, token) as box,
    ):
        scores = PromptScorer(box, card.task(), card.space).scores(examples, z[None])
    whole = Measured.of_scores(scores, examples)
    right = scores[0].argmax(axis=1) == examples.labels
    rows = {name: examples.labels == index for index, name in enumerate(card.labels)}
    result: dict[str, Any] = {
        "accuracy": whole.accuracy,
        "loss": whole.loss,
        "examples": len(examples),
        "accuracy_by_class": {name: float(right[mine].mean()) for name, mine in rows.items() if mine.any()},
    }
    show(result, json)
