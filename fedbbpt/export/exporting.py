"""Writes a tuned prompt in another program's form, into a folder of its own."""

import shutil
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedbbpt.errors import InvalidInput
from fedbbpt.export import readout_file, text_prompt
from fedbbpt.export.tuned import Tuned, split
from fedbbpt.federation.prompt_file import read_prompt
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.files import atomic_write


class Target(StrEnum):
    """The program that is going to use the prompt."""

    PEFT = "peft"
    VLLM = "vllm"
    HF = "hf"
    TEXT = "text"
    ONNX = "onnx"


def export(prompt: Path, target: Target, out: Path, model: str = "", *, any_revision: bool = False) -> list[str]:
    """Writes the prompt of a file in another form. Returns the names of the files in `out`.

    All forms have the file readout.json: how inputs are made, and how class scores follow from the model's.

    Args:
        prompt: The prompt.safetensors of a run.
        target: The program that is going to use it.
        out: The folder to make.
        model: The model to load in place of the card's; not for `text` and `onnx`, which load none.
        any_revision: Whether another revision of the model than the card's will do.

    Raises:
        InvalidInput: The prompt or the model cannot be read, or `out` exists.
        UnsupportedPrompt: The program cannot express the prompt, or computes other scores with it.
        RevisionChanged: The model has another revision.
    """
    if out.exists():
        raise InvalidInput("the folder exists", where=str(out), fix="a folder that does not, or delete this one")
    tuned = split(*read_prompt(prompt))
    content = readout_file.describe(tuned)
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        content |= _write(tuned, target, folder, model, any_revision)
        atomic_write(folder / readout_file.NAME, readout_file.text_of(content))
        folder.chmod(0o755)
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return sorted(path.name for path in out.iterdir())


def _write(tuned: Tuned, target: Target, folder: Path, model: str, any_revision: bool) -> dict[str, Any]:
    """Writes the files of a form except readout.json, and returns this form's keys for it."""
    if target is Target.TEXT:
        if tuned.prompted:
            atomic_write(folder / text_prompt.NAME, f"{text_prompt.templates(tuned)[-1]}\n")
        return text_prompt.describe_templates(tuned)
    if target is Target.ONNX:
        with needs_extra("onnx", where="--to onnx"):
            from fedbbpt.export.picture_graph import write_graph
        return write_graph(tuned, folder)
    if target is Target.PEFT:
        with needs_extra("peft", where="--to peft", alternative="--to hf"):
            from fedbbpt.export.peft_adapter import write_adapter
    with needs_extra("ptm", where=f"--to {target}"):
        from fedbbpt.export import vector_file
        from fedbbpt.export.plain_model import open_plain
    plain = open_plain(tuned, tuned.card.model(model), any_revision=any_revision)
    inputs = readout_file.describe_inputs(plain)
    write = {Target.HF: vector_file.write_vectors, Target.VLLM: vector_file.write_prompt_embeds}
    found = write_adapter(plain, folder) if target is Target.PEFT else write[target](plain, folder)
    return inputs | found
