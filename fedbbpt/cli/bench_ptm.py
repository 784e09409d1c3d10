"""`fedbbpt bench ptm`: how fast a PTM service is on this machine."""

import json as json_format
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.bench.ptm.figures import COLUMNS, Figure
from fedbbpt.bench.ptm.page import Page, record
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, out
from fedbbpt.errors import InvalidInput
from fedbbpt.types import Precision, Runtime

_SIZES, _OTHER = "Sizes", "Causal models and accelerators"


def ptm(
    model: Annotated[
        str, typer.Option(help="A dual encoder or a masked language model, as for ptm serve.")
    ] = "all-MiniLM-L6-v2",
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model; 0: all cores.")] = 0,
    precision: Annotated[Precision, typer.Option(help="Of the service and of the loops beside it.")] = (
        Precision.FLOAT32
    ),
    runtime: Annotated[
        Runtime, typer.Option("--engine", help="Of the service; the loops beside it are torch's.")
    ] = Runtime.TORCH,
    part: Annotated[
        list[str] | None,
        typer.Option(
            help="throughput, health, memory, precision, causal, replicas or device; may be given several times.  "
            "[default: all]"
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Jobs of which the median counts.")] = 9,
    prompts: Annotated[int, typer.Option(min=1, help="Of a job.", rich_help_panel=_SIZES)] = 20,
    examples: Annotated[int, typer.Option(min=1, help="Of a job.", rich_help_panel=_SIZES)] = 16,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt.", rich_help_panel=_SIZES)] = 50,
    dim: Annotated[int, typer.Option(min=1, help="The length of z.", rich_help_panel=_SIZES)] = 500,
    shortest: Annotated[int, typer.Option(min=1, help="Words of a text, at least.", rich_help_panel=_SIZES)] = 9,
    longest: Annotated[int, typer.Option(min=1, help="Words of a text, at most.", rich_help_panel=_SIZES)] = 40,
    probes: Annotated[int, typer.Option(min=1, help="Calls of the health check.", rich_help_panel=_SIZES)] = 500,
    jobs: Annotated[int, typer.Option(min=4, help="Of the memory part.", rich_help_panel=_SIZES)] = 1000,
    causal_model: Annotated[
        str, typer.Option(help="A causal language model; empty: a random one.", rich_help_panel=_OTHER)
    ] = "",
    causal_words: Annotated[int, typer.Option(min=1, help="Of each text.", rich_help_panel=_OTHER)] = 100,
    device: Annotated[
        str, typer.Option(help="cpu or cuda; empty: cuda where there is one.", rich_help_panel=_OTHER)
    ] = "",
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="roberta-large, llama-2-7b or tiny; may be given several times.  [default: the first two]",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write the figures into this page, between its marks.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure a PTM service beside what its model can do at best and what is usual, on this machine.

    Ratios are those of neighbours in one run, and the median counts. What else runs on the machine should be little.

    Example: fedbbpt bench ptm --part throughput --part health
    """
    try:
        from fedbbpt.bench.ptm.loops.random_models import SHAPES
        from fedbbpt.bench.ptm.suite import PARTS, Suite
    except ModuleNotFoundError as error:
        raise InvalidInput(f"{error.name} is not installed", where="bench", fix="pip install 'fedbbpt[ptm]'") from None
    if longest < shortest:
        raise InvalidInput(f"{shortest} to {longest} words", where="--shortest, --longest", fix="the other way round")
    place = None if page is None else Page.read(page)
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
        figures = suite.run(Path(folder), status.update)
    found = record(figures, shlex.join(["fedbbpt", *sys.argv[1:]]))
    if place is not None:
        place.write(found, figures)
    if json:
        sys.stdout.write(json_format.dumps(found) + "\n")
    else:
        out.print(_table(figures))


def _known(option: str, given: list[str], known: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    """Raises InvalidInput."""
    for word in given:
        if word not in known:
            raise InvalidInput(f"{word!r} is unknown", where=option, fix=f"one of {', '.join(known)}")
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
