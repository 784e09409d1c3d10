"""Commands that use a tuned prompt: `predict` and `evaluate`."""

import logging
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from fedbbpt.api.prompts import TunedPrompt
from fedbbpt.api.ptm import open_ptm
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.bundles import ColumnNames, PtmAccess, with_bundles
from fedbbpt.cli.terminal.console import err, log_to_stderr, out, show
from fedbbpt.client.asking import PromptScorer
from fedbbpt.data.examples import read
from fedbbpt.data.images import read_unlabelled
from fedbbpt.errors import InvalidInput
from fedbbpt.federation.evaluation import Measured
from fedbbpt.federation.prompt_file import PromptCard, read_prompt
from fedbbpt.interfaces import Ptm
from fedbbpt.types import Examples

_PATIENCE_SECONDS = 5.0
"""How long to retry a service that does not answer, while a person waits."""

PromptFile = Annotated[
    Path, typer.Option("--prompt", metavar="FILE", help="The tuned prompt: prompt.safetensors of a run.")
]


@with_bundles
def predict(
    prompt: PromptFile,
    service: PtmAccess,
    text: Annotated[list[str] | None, typer.Option(help="A text to classify. Repeat it for more texts.")] = None,
    text_pair: Annotated[
        list[str] | None, typer.Option(help="The second text of an input. Give one for each --text.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="A file with images to classify in its array x.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Classify texts or images with a tuned prompt, on a PTM service or on the model loaded into this process.

    Example: fedbbpt predict --prompt run/prompt.safetensors --text "Where do I pay?"
    """
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    examples, names = _inputs(text or [], text_pair or [], images)
    with err.status("asking the model"), _open(card, service) as ptm:
        found = TunedPrompt(z, card).predict(examples, ptm)
    kind = "text" if images is None else "image"
    predictions = [
        {kind: name, "label": prediction.label, "probability": prediction.probability}
        for name, prediction in zip(names, found, strict=True)
    ]
    if json:
        show({"predictions": predictions}, as_json=True)
    else:
        _print(predictions, kind)


@with_bundles
def evaluate(
    prompt: PromptFile,
    data: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="Labelled examples: JSONL, CSV, Parquet, .npz of images, or a Hugging Face name."
        ),
    ],
    service: PtmAccess,
    names: ColumnNames,
    json: options.Json = False,
) -> None:
    """Measure a tuned prompt on labelled examples: accuracy, loss, and accuracy per class.

    Example: fedbbpt evaluate --prompt run/prompt.safetensors --data other.csv
    """
    log_to_stderr(logging.WARNING)
    z, card = read_prompt(prompt)
    examples = read(data, card.labels, names.columns())
    with err.status("asking the model"), _open(card, service) as ptm:
        scores = PromptScorer(ptm, card.task(), card.space).scores(examples, z[None])
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


def _open(card: PromptCard, service: PtmAccess) -> AbstractContextManager[Ptm]:
    """Opens the service, or the card's model loaded as the run had it."""
    return open_ptm(
        card.ptm,
        address=service.ptm,
        revision=card.ptm_revision,
        precision=card.ptm_precision,
        tls=service.tls(),
        token=service.token(),
        patience_seconds=_PATIENCE_SECONDS,
    )


def _inputs(text: list[str], text_pair: list[str], images: Path | None) -> tuple[Examples, list[str]]:
    """Returns the examples, and a name for each."""
    if bool(text) == (images is not None):
        what = "give texts or images" if images is None else "give texts or images, not both"
        raise InvalidInput(what, where="--text, --images", fix="one of the two options")
    if text_pair and len(text_pair) != len(text):
        what = f"{len(text_pair)} second texts for {len(text)} texts"
        raise InvalidInput(what, where="--text-pair", fix="one --text-pair for each --text")
    if images is None:
        return Examples(tuple(text), tuple(text_pair) or None), text
    examples = read_unlabelled(images)
    return examples, [f"{images.name}:{row}" for row in range(len(examples))]


def _print(predictions: list[dict[str, Any]], kind: str) -> None:
    table = Table(box=None, header_style="dim")
    for name in ("label", "probability", kind):
        table.add_column(name)
    for found in predictions:
        table.add_row(str(found["label"]), f"{found['probability']:.3f}", str(found[kind]))
    out.print(table)
