"""Models in GGUF files: converted into checkpoints with float32 weights, once, in the user's cache.

transformers reads such a file and dequantises its weights, which takes a while and cannot be saved by itself. A
conversion leaves an ordinary checkpoint in a folder that is named after the file's digest: what differs in content
differs in place, and a folder that exists is complete. The digest is also what the model's revision is made of.
"""

import fcntl
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, GgufConfig
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import GgufHeader, read_gguf_metadata
from transformers.integrations.gguf.utils import is_gguf_arch_supported
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.host.extras import require_package
from fedbbpt.host.files import sync_folder
from fedbbpt.ptm.models.weights_progress import weights_progress

CONVERSION = f"1-transformers-{transformers.__version__}"
"""Version of the conversion, a part of the folder's name: another one makes another folder."""
SPLIT_AS_GPT2 = frozenset({"default", "gpt-2", "phi-2", "mpt", "olmo", "roberta-bpe", "jina-es", "jina-de"})
"""Pre-tokenizers that split words as GPT-2 does, which is what transformers does with an unknown one."""
SPLIT_DIGITS = frozenset({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"})
"""Pre-tokenizers that take each digit alone and split the rest as GPT-2 does. transformers does not know them."""

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Returns the folder for converted models, in the user's cache as freedesktop.org's specification has it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedbbpt" / "gguf"


def converted_from(folder: Path) -> str:
    """Returns the SHA-256 digest of the file that a folder was converted from; "" for other folders."""
    return folder.name.partition("-")[0] if folder.parent == cache_folder() else ""


def convert(path: Path, digest: str) -> Path:
    """Returns the folder of the checkpoint that a GGUF file contains, and makes it if there is none.

    Of two processes that convert one file, the second waits for the first.

    Args:
        path: The file.
        digest: Its SHA-256 digest.

    Raises:
        InvalidInput: The file is broken or asks for what is not supported, a package is missing, or the cache cannot
            be written.
    """
    metadata = _read_metadata(path)
    folder = cache_folder() / f"{digest}-{CONVERSION}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if not folder.exists():
                _convert(path, metadata, folder)
    except OSError as error:
        fix = "a cache that can be written, with space for 4 bytes per weight: XDG_CACHE_HOME names another"
        raise InvalidInput(error.strerror or str(error), where=str(folder.parent), fix=fix) from None
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process converts to the folder, and removes what an interrupted one has left."""
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.parent.glob(f"{folder.name}.partial-*"):
            shutil.rmtree(left)
        yield


def _convert(path: Path, metadata: Mapping[str, Any], folder: Path) -> None:
    _LOG.warning("converting %s once, into %s", path, folder)
    partial = Path(mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        model, tokenizer = _load(path, metadata)
        _without_quantisation(model).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        sync_folder(partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read_metadata(path: Path) -> Mapping[str, Any]:
    """Returns the file's metadata, with counts in place of lists of texts.

    Raises:
        InvalidInput: The file is broken, or is not a whole language model with its tokenizer.
    """
    for package in ("gguf", "accelerate"):
        require_package(package, "gguf", where=str(path))
    try:
        metadata, _ = read_gguf_metadata(str(path))
        header = GgufHeader.from_file(str(path))
        end = max((header.data_start + tensor.offset + tensor.nbytes for tensor in header.tensors), default=0)
    except (OSError, ValueError, struct.error, UnicodeDecodeError, OverflowError, MemoryError, IndexError) as error:
        raise InvalidInput(
            f"not a readable GGUF file: {first_line(error)}", where=str(path), fix="a whole file"
        ) from None
    if metadata.get("split.count", 1) > 1:
        fix = "one file: llama-gguf-split --merge joins them"
        raise InvalidInput(f"one of {metadata['split.count']} parts of a model", where=str(path), fix=fix)
    if (size := path.stat().st_size) < end:
        raise InvalidInput(f"the file ends after {size} of {end} bytes", where=str(path), fix="download it again")
    if (kind := metadata.get("general.type", "model")) != "model":
        raise InvalidInput(f"the file has the type {kind!r}", where=str(path), fix="the file of a whole model")
    if "tokenizer.ggml.tokens" not in metadata:
        raise InvalidInput("the file has no tokenizer", where=str(path), fix="a file that contains one")
    _check_supported(path, metadata)
    return metadata


def _check_supported(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raises InvalidInput for what transformers would leave out in silence."""
    architecture = metadata["general.architecture"]
    scaling = metadata.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" and architecture not in ("gpt-oss", "gpt_oss"):
        what = f"the file scales its rotary positions ({scaling}), which transformers does not read"
        raise InvalidInput(what, where=str(path), fix="the model's own checkpoint in safetensors")
    split = metadata.get("tokenizer.ggml.pre", "default")
    known = {*SPLIT_AS_GPT2, *SPLIT_DIGITS, *GGUF_PRE_TOKENIZER_SPLITS}
    if metadata.get("tokenizer.ggml.model") == "gpt2" and split not in known:
        what = f"the pre-tokenizer {split!r} is unknown"
        raise InvalidInput(what, where=str(path), fix="the model's own checkpoint in safetensors")


def _load(path: Path, metadata: Mapping[str, Any]) -> tuple[Any, Any]:
    """Returns the dequantised model and its tokenizer."""
    source = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(path.parent, **source)
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **source)
        with weights_progress(f"dequantising {path.name}"):
            model, report = _auto_class(config).from_pretrained(
                path.parent,
                dtype=torch.float32,
                quantization_config=GgufConfig(dequantize=True),
                output_loading_info=True,
                **source,
            )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, AttributeError) as error:
        architecture = metadata["general.architecture"]
        what = f"transformers cannot read this file of the architecture {architecture!r}: {first_line(error)}"
        raise InvalidInput(what, where=str(path), fix="the model's own checkpoint in safetensors") from None
    _check_complete(path, metadata, model, report["missing_keys"])
    if metadata.get("tokenizer.ggml.pre") in SPLIT_DIGITS:
        digits = pre_tokenizers.Digits(individual_digits=True)
        words = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    return model, tokenizer


def _auto_class(config: Any) -> Any:
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM if type(config) in AutoModelForCausalLM._model_mapping else AutoModel


def _check_complete(path: Path, metadata: Mapping[str, Any], model: Any, missing: Any) -> None:
    """Raises InvalidInput if the model lacks weights, or the file has tensors that were not read."""
    fix = "the model's own checkpoint in safetensors"
    if missing:
        raise InvalidInput(f"the file lacks {', '.join(sorted(missing)[:3])}", where=str(path), fix=fix)
    architecture = metadata["general.architecture"]
    if is_gguf_arch_supported(architecture):  # read by another part of transformers, which leaves nothing out
        return
    make_processor: Any = TENSOR_PROCESSORS.get(architecture, TensorProcessor)
    processor = make_processor(config=model.config.to_dict())
    known = get_gguf_hf_weights_map(model, processor)
    _, names = read_gguf_metadata(str(path))
    unread = [name for name in names if name not in known and "_exps." not in name]  # experts have names of their own
    if unread:
        raise InvalidInput(f"transformers does not read the tensor {unread[0]}", where=str(path), fix=fix)


def _without_quantisation(model: Any) -> Any:
    """Returns the same weights in a model that can be saved. No weight is copied."""
    vars(model.config).pop("quantization_config", None)
    with torch.device("meta"):
        plain = type(model)(model.config)
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    return plain
