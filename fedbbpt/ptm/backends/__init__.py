"""The models behind the wall. Torch and transformers are imported here and nowhere else."""

from typing import Any

from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.backends.fake import Fake


def load(model: str, *, family: str = "", threads: int = 0) -> Backend[Any]:
    """The backend of a model: "fake", "all-MiniLM-L6-v2" (in the demo extra), a folder, or a name on the hub.

    `family` says how to ask it (`families.FAMILIES`); empty reads that from the checkpoint's architecture. `threads` 0
    takes all cores. Raises InvalidInput where the model cannot be had.
    """
    if model == "fake":
        return Fake()
    try:
        from fedbbpt.ptm.backends.families import load_checkpoint
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{error.name} is not installed", where="model", fix="pip install 'fedbbpt[ptm]', or the model \"fake\""
        ) from None
    return load_checkpoint(model, family=family, threads=threads)
