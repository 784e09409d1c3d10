"""`fedbbpt bench ptm`: measures how fast a PTM service is on this machine."""

import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.page import Page, circumstances
from fedbbpt.bench.ptm.figures import COLUMNS, Figure, table_lines
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out
from fedbbpt.errors import InvalidInput
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.json_text import json_text
from fedbbpt.types import Precision, Runtime

BENCHMARK = "fedbbpt bench ptm"
_SIZES, _OTHER = "Sizes", "Causal models and accelerators"


def ptm(
    model: Annotated[
        str,
        typer.Option(help="The model: a dual encoder or a masked language model, named as for `fedbbpt ptm serve`."),
    ] = "all-MiniLM-L6-v2",
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model; 0 means all cores.")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="The precision of the service and of the loops that it is compared with.")
    ] = (Precision.FLOAT32),
    runtime: Annotated[
        Runtime,
        typer.Option("--engine", help="The runtime of the service. The loops that it is compared with use torch."),
    ] = Runtime.TORCH,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="A measurement: throughput, health, memory, precision, causal, replicas or device. "
            "Repeat it for more. By default all."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="The number of timed jobs, of which the median counts.")] = 9,
    prompts: Annotated[
        int, typer.Option(min=1, help="The number of prompts in each job.", rich_help_panel=_SIZES)
    ] = 20,
    examples: Annotated[int, typer.Option(min=1, help="The number of texts in each job.", rich_help_panel=_SIZES)] = 16,
    prompt_tokens: Annotated[
        int, typer.Option(min=1, help="The number of tokens in each prompt.", rich_help_panel=_SIZES)
    ] = 50,
    dim: Annotated[int, typer.Option(min=1, help="The length of z.", rich_help_panel=_SIZES)] = 500,
    shortest: Annotated[int, typer.Option(min=1, help="The fewest words in a text.", rich_help_panel=_SIZES)] = 9,
    longest: Annotated[int, typer.Option(min=1, help="The most words in a text.", rich_help_panel=_SIZES)] = 40,
    probes: Annotated[int, typer.Option(min=1, help="The number of health checks.", rich_help_panel=_SIZES)] = 500,
    jobs: Annotated[
        int, typer.Option(min=4, help="The number of jobs in the memory measurement.", rich_help_panel=_SIZES)
    ] = 1000,
    causal_model: Annotated[
        str,
        typer.Option(help="The causal language model. By default one with random weights.", rich_help_panel=_OTHER),
    ] = "",
    causal_words: Annotated[
        int, typer.Option(min=1, help="The number of words in each text for the causal model.", rich_help_panel=_OTHER)
    ] = 100,
    device: Annotated[
        str,
        typer.Option(help="The accelerator: cpu or cuda. By default cuda, if there is one.", rich_help_panel=_OTHER),
    ] = "",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="A model to measure on the accelerator: roberta-large, llama-2-7b or tiny. Repeat it for more. "
            "By default the first two.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(help="The Markdown page to write the figures into, between its marks.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure a PTM service next to loops written by hand with the same model, on this machine.

    Ratios are taken between neighbouring measurements, and the median counts. Run little else on the machine meanwhile.

    Example: fedbbpt bench ptm --part throughput --part health
    """
    with needs_extra("ptm", where="bench"):
        from fedbbpt.bench.ptm.loops.random_models import SHAPES
        from fedbbpt.bench.ptm.suite import PARTS, Suite
    if longest < shortest:
        fix = "a longest text that is not shorter than the shortest"
        raise InvalidInput(f"{shortest} to {longest} words", where="--shortest, --longest", fix=fix)
    place = None if page is None else Page.read(page, BENCHMARK)
    suite = Suite(
        model=model,
        threads=threads or os.cpu_count() or 1,
        precision=precision,
        runtime=runtime,
        workload=Workload(prompts, examples, prompt_tokens, dim, shortest, longest),
        repeats=repeats,
        probes=probes,
        jobs=jobs,
        causal_model=causal_model,
        causal_words=causal_words,
        device=_known("--device", [device] if device else [], ("cpu", "cuda"), ("",))[0],
        shapes=_known("--shape", shape or [], tuple(SHAPES), ("roberta-large", "llama-2-7b")),
        parts=_known("--part", part or [], PARTS, PARTS),
    )
    with err.status("") as status, tempfile.TemporaryDirectory(prefix="fedbbpt-bench-") as folder:
        _report(suite.run(Path(folder), status.update), place, json)


def _report(figures: tuple[Figure, ...], place: Page | None, json: bool) -> None:
    """Writes the figures into the page, if there is one, and prints them."""
    found = circumstances(shlex.join(["fedbbpt", *sys.argv[1:]]), "torch", "grpcio")
    if place is not None:
        place.write(found, list(table_lines(figures)))
    if json:
        sys.stdout.write(json_text(found | {"figures": [figure.record() for figure in figures]}) + "\n")
    else:
        out.print(_table(figures))


def _known(option: str, given: list[str], known: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the given values or the default. Raises InvalidInput for an unknown value."""
    for word in given:
        if word not in known:
            raise InvalidInput(f"unknown value {word!r}", where=option, fix=f"one of {', '.join(known)}")
    return tuple(given) or default


def _table(figures: tuple[Figure, ...]) -> Table:
    table = Table(box=None, header_style="dim")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index else "left")
    for before, figure in zip((None, *figures), figures, strict=False):
        if before is None or before.part != figure.part:
            table.add_row(figure.part, style="bold")
        table.add_row(*figure.cells())
    return table
