"""The command `export`: writes a tuned prompt in the form of another program."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.cli.terminal.logs import log_to_stderr
from fedbbpt.export.exporting import Target
from fedbbpt.export.exporting import export as write
from fedbbpt.host.progress import progress


def export(
    prompt: Annotated[Path, typer.Argument(metavar="PROMPT", help="The tuned prompt: prompt.safetensors of a run.")],
    to: Annotated[
        Target,
        typer.Option(
            help="peft: an adapter of PEFT; vllm: the vectors of vLLM's prompt_embeds; hf: vectors for plain "
            "transformers; text: a prompt in words, in its template; onnx: a visual prompt as a graph.",
            show_default=False,
        ),
    ],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.", show_default=False)],
    model_name: options.CardModel = "",
    any_revision: Annotated[
        bool,
        typer.Option(
            "--any-revision",
            help="Accept a model with another revision than the one on the card, which a GPU or a runtime counts as.",
        ),
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a tuned prompt in the form of PEFT, vLLM, transformers, plain text or ONNX.

    Example: fedbbpt export run/prompt.safetensors --to peft --out adapter
    """
    log_to_stderr(logging.WARNING)
    with progress(f"exporting to {to}"):
        files = write(prompt, to, folder, model_name, any_revision=any_revision)
    if json:
        show({"out": str(folder), "files": files}, as_json=True)
    else:
        out.print(f"{folder}: {', '.join(files)}", highlight=False)
