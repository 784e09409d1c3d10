"""Loads checkpoints in the Hugging Face layout.

Weights are read from safetensors only, and code in a checkpoint is never run (`trust_remote_code` is off).
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from tokenizers import normalizers
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.checkpoint_files import (
    check_generation_settings,
    check_no_adapter,
    check_weights,
    digest_files,
    read_json,
)
from fedbbpt.ptm.models.gguf_conversion import converted_from
from fedbbpt.ptm.models.text.sentence_encoder import SentenceEncoder, read_sentence_encoder
from fedbbpt.ptm.models.weights_progress import weights_progress
from fedbbpt.types import Precision, Runtime

CPU = "cpu"

_LENGTH_NAMES = ("max_position_embeddings", "max_seq_len")
"""Names under which a config.json states the longest input. MPT calls it max_seq_len."""
_QUANTISATIONS = frozenset({*AUTO_QUANTIZATION_CONFIG_MAPPING, "bitsandbytes"})
SHORTEST_MAX_LENGTH = 8
"""The smallest length of the longest input to which a model can be limited."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model loaded in float32, and the precision and runtime with which its backend computes the layers."""

    name: str
    revision: str
    """Digest of the files, the family and the precision; of runtime and kind of device if they are not torch and a
    CPU; and of the limit of the longest input, if it is below the model's own."""
    model: Any
    tokenizer: Any
    """None if the model does not read text."""
    max_tokens: int
    """Most tokens of an input; 0 if the model does not read text."""
    precision: Precision
    runtime: Runtime
    folder: Path
    sentence_encoder: SentenceEncoder
    """How a dual encoder makes one embedding of its hidden states."""


def read_config(folder: Path) -> Any:
    """Reads a checkpoint's config.json.

    Raises:
        InvalidInput: There is no such file, transformers does not know the model, or the folder has only an adapter.
    """
    path = folder / "config.json"
    check_no_adapter(folder)
    if not path.is_file():
        raise InvalidInput("no such file", where=str(path), fix="a folder with a checkpoint of transformers")
    read_json(path)
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each architecture rejects values in its own way
        why = first_line(error.__cause__ or error) if isinstance(error, StrictDataclassError) else first_line(error)
        raise InvalidInput(why, where=str(path), fix="a model that transformers knows") from None


@contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps transformers from printing its reports; what matters in them to a user becomes an error here."""
    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it has no types
    try:
        yield
    finally:
        transformers.utils.logging.set_verbosity(before)


def load(
    name: str,
    folder: Path,
    auto_class: Any,
    family: str,
    precision: Precision,
    runtime: Runtime = Runtime.TORCH,
    device: str = CPU,
    max_length: int = 0,
) -> Checkpoint:
    """Loads a checkpoint with transformers' `auto_class`, in eval mode and without gradients, onto a device.

    `max_length` limits the longest input, in tokens; 0 leaves it at the model's own limit.

    Raises:
        InvalidInput: The checkpoint is incomplete, is of another family, does not state the length of its longest input
            or takes less than `max_length`, or the device is not available.
    """
    encoder = read_sentence_encoder(folder) if family == "dual-encoder" else SentenceEncoder(folder)
    check_weights(encoder.folder)
    check_generation_settings(encoder.folder)
    config = read_config(encoder.folder)
    _check_quantisation(config, encoder.folder)
    if family == "dual-encoder" and config.is_encoder_decoder:
        auto_class = transformers.AutoModelForTextEncoding  # T5's encoder, without its decoder
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    try:
        # What the weights lack is refused below, by name.
        with without_warnings(), weights_progress(f"loading {name}"):
            model, report = auto_class.from_pretrained(
                encoder.folder,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except SafetensorError as error:
        what = f"the weights are damaged or incomplete ({first_line(error)})"
        fix = "copy the *.safetensors files again, in full; in a git repository, 'git lfs pull' fetches them"
        raise InvalidInput(what, where=str(folder), fix=fix) from None
    except KeyError as error:
        what = f"transformers does not know, or does not find, {error}"
        raise InvalidInput(what, where=str(folder), fix="a checkpoint as transformers saves it") from None
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise InvalidInput(first_line(error), where=str(folder), fix=f"a checkpoint of a {family}") from None
    tokenizer = _load_tokenizer(encoder) if family != "image-classifier" else None
    if mismatched := sorted(str(found[0]) for found in report["mismatched_keys"]):
        what = f"weights have another shape than config.json states: {', '.join(mismatched[:3])}"
        raise InvalidInput(what, where=str(folder), fix="the files as they were published")
    # Families that need a pooler have one in their checkpoints; the others do not use it.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith("pooler."))
    if missing:
        what = f"the weights lack {', '.join(missing[:3])}"
        raise InvalidInput(
            what, where=str(folder), fix=f"a checkpoint that was trained as a {family}, or another family"
        )
    model.eval().requires_grad_(False)
    model.config.use_cache = False
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without support for the device
        raise InvalidInput(first_line(error), where=f"device {device}", fix=CPU) from None
    lines: list[str] = [family, precision]
    if runtime is not Runtime.TORCH:
        lines.append(runtime)
    if device != CPU:
        lines.append(model.device.type)
    own_limit = None if tokenizer is None else _own_limit(model, tokenizer)
    meant = min(encoder.max_tokens, own_limit or encoder.max_tokens)
    max_tokens = 0 if tokenizer is None else _max_tokens(own_limit, max_length or meant, folder)
    if max_length and max_length != (meant or own_limit):
        lines.append(f"max_length {max_length}")
    lines += [digest] if (digest := converted_from(folder)) else digest_files(folder)
    revision = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]
    return Checkpoint(name, revision, model, tokenizer, max_tokens, precision, runtime, folder, encoder)


def _check_quantisation(config: Any, folder: Path) -> None:
    """Raises InvalidInput if the weights are quantised by a method that transformers would ignore."""
    stated = getattr(config, "quantization_config", None)
    if stated is None:
        return
    stated = stated if isinstance(stated, dict) else stated.to_dict()
    method = stated.get("quant_method", "bitsandbytes")  # its files do not always state the method
    if str(getattr(method, "value", method)).removeprefix("bitsandbytes_") not in _QUANTISATIONS:
        what = f"the weights are quantised by {method!r}, which transformers does not know"
        raise InvalidInput(what, where=str(folder / "config.json"), fix="the model's checkpoint in bfloat16 or float32")


def _load_tokenizer(encoder: SentenceEncoder) -> Any:
    where, fix = str(encoder.folder), "the tokenizer's files next to the weights, such as tokenizer.json"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            encoder.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise InvalidInput(f"the tokenizer cannot be read: {first_line(error)}", where=where, fix=fix) from None
    # Without a vocabulary, transformers makes a tokenizer of the special tokens that the type of model usually has.
    if len(tokenizer) <= len(tokenizer.all_special_tokens) + 1:
        raise InvalidInput("the tokenizer has no vocabulary", where=where, fix=fix)
    if encoder.lower_case:
        backend = tokenizer.backend_tokenizer
        steps = (
            [normalizers.Lowercase()] if backend.normalizer is None else [normalizers.Lowercase(), backend.normalizer]
        )
        backend.normalizer = normalizers.Sequence(steps)
    return tokenizer


def _own_limit(model: Any, tokenizer: Any) -> int | None:
    """Returns the longest input that both the model's positions and its tokenizer allow; None if neither states one."""
    config = model.config.get_text_config()
    limits = [tokenizer.model_max_length, *(getattr(config, name, None) for name in _LENGTH_NAMES)]
    embeddings = getattr(model.base_model, "embeddings", None)
    positions = getattr(embeddings, "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding):
        # RoBERTa counts positions from the one after its padding id.
        limits.append(positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1))
    # Tokenizers without a limit state a huge number, and some configurations state 0 or -1.
    return min((int(limit) for limit in limits if isinstance(limit, int | float) and 0 < limit < 10**9), default=None)


def _max_tokens(own_limit: int | None, max_length: int, folder: Path) -> int:
    """Returns the model's own limit, or the lower one of the caller. Raises InvalidInput if there is neither."""
    if max_length and max_length < SHORTEST_MAX_LENGTH:
        what = f"inputs of at most {max_length} tokens leave no room for a prompt and a text"
        raise InvalidInput(what, where="--max-length", fix=f"at least {SHORTEST_MAX_LENGTH}")
    if own_limit is not None and own_limit < SHORTEST_MAX_LENGTH:
        what = f"the model's config.json or its tokenizer states {own_limit} tokens as the longest input"
        raise InvalidInput(what, where=str(folder), fix=f"a model that takes at least {SHORTEST_MAX_LENGTH}")
    if own_limit is None and not max_length:
        what = "neither the model's config.json nor its tokenizer states the length of the longest input"
        raise InvalidInput(what, where=str(folder), fix="--max-length, for example 512")
    if own_limit is not None and max_length > own_limit:
        what = f"inputs of {max_length} tokens are longer than the {own_limit} that the model takes"
        raise InvalidInput(what, where="--max-length", fix=f"at most {own_limit}, or 0 for the model's own limit")
    return max_length or own_limit or 0
