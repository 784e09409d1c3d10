"""The families of transformers models, one backend for each, and how a checkpoint's family is found."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
)

from fedbbpt.errors import FedbbptError, InvalidInput, first_line
from fedbbpt.ptm.models.accelerate.exported_layers import check_runtime
from fedbbpt.ptm.models.checkpoint import CPU, load, read_config
from fedbbpt.ptm.models.image.clip import Clip
from fedbbpt.ptm.models.image.image_classifier import ImageClassifier
from fedbbpt.ptm.models.precision.choice import load_measured
from fedbbpt.ptm.models.precision.memory import memory_of
from fedbbpt.ptm.models.precision.trial import measure_product
from fedbbpt.ptm.models.sources import locate
from fedbbpt.ptm.models.text.causal_lm import CausalLM
from fedbbpt.ptm.models.text.dual_encoder import DualEncoder
from fedbbpt.ptm.models.text.encoder_decoder import EncoderDecoder
from fedbbpt.ptm.models.text.masked_lm import MaskedLM
from fedbbpt.ptm.models.text.sentence_encoder import is_sentence_encoder, read_sentence_encoder
from fedbbpt.ptm.models.text.sequence_classifier import SequenceClassifier
from fedbbpt.ptm.models.text.transformer import Transformer
from fedbbpt.types import Precision, PrecisionChoice, Runtime

DEFAULT_WIDTH = 1024
"""Width of the layers that the choice of precision assumes where a configuration does not state it."""

log = logging.getLogger(__name__)

FAMILIES: Mapping[str, tuple[type[Transformer[Any]] | type[Clip] | type[ImageClassifier], Any]] = {
    "dual-encoder": (DualEncoder, transformers.AutoModel),
    "masked-lm": (MaskedLM, transformers.AutoModelForMaskedLM),
    "causal-lm": (CausalLM, transformers.AutoModelForCausalLM),
    "seq2seq-lm": (EncoderDecoder, transformers.AutoModelForSeq2SeqLM),
    "sequence-classifier": (SequenceClassifier, transformers.AutoModelForSequenceClassification),
    "clip": (Clip, transformers.AutoModel),
    "image-classifier": (ImageClassifier, transformers.AutoModelForImageClassification),
}
"""The backend of each family, and transformers' class that loads its checkpoints."""

ARCHITECTURE_SUFFIXES = {
    "ForMaskedLM": "masked-lm",
    "ForCausalLM": "causal-lm",
    "LMHeadModel": "causal-lm",
    "ForConditionalGeneration": "seq2seq-lm",
    "EncoderDecoderModel": "seq2seq-lm",
    "MTModel": "seq2seq-lm",
    "ForSequenceClassification": "sequence-classifier",
    "CLIPModel": "clip",
    "ForImageClassification": "image-classifier",
    "Model": "dual-encoder",
}
"""Endings of the names under `architectures` in config.json, and the family each belongs to. The first match counts."""

_ENCODERS_OF_ENCODER_DECODERS = {
    model_type for model_type, name in MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.items() if name.endswith("EncoderModel")
}


def load_backend(
    model: str,
    *,
    family: str = "",
    threads: int = 0,
    precision: PrecisionChoice = PrecisionChoice.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    device: str = CPU,
    max_length: int = 0,
) -> Transformer[Any] | Clip | ImageClassifier:
    """Loads a checkpoint with the backend of its family; see `loading.load` for the arguments.

    Raises:
        InvalidInput: There is no such model, its family is unknown, or its family does not support the
            precision, the runtime, the device or the length.
    """
    folder = locate(model)
    family = family or family_of(folder)
    if family not in FAMILIES:
        raise InvalidInput(f"unknown family {family!r}", where="family", fix=f"one of {', '.join(FAMILIES)}")
    backend, auto_class = FAMILIES[family]
    transformer = read_sentence_encoder(folder).folder if family == "dual-encoder" else folder
    if family == "dual-encoder" and read_config(transformer).model_type in _ENCODERS_OF_ENCODER_DECODERS:
        auto_class = transformers.AutoModelForTextEncoding
    reads_text = issubclass(backend, Transformer)
    measured = precision is PrecisionChoice.AUTO and reads_text and runtime is Runtime.TORCH
    fixed = Precision.FLOAT32 if precision is PrecisionChoice.AUTO else Precision(precision)
    check_runtime(runtime, fixed, family, model)
    if fixed is not Precision.FLOAT32 and not reads_text:
        raise InvalidInput(f"this model does not support {precision}", where=model, fix="float32")
    if device != CPU and (runtime is not Runtime.TORCH or not reads_text):
        raise InvalidInput(f"device {device} is for text models that torch computes", where=model, fix=f"device {CPU}")
    if max_length and not reads_text:
        raise InvalidInput(f"a model of the family {family} has no length of texts", where="--max-length", fix="0")

    def load_in(precision: Precision) -> Transformer[Any] | Clip | ImageClassifier:
        with _failures_in_words(model, transformer, family):
            checkpoint = load(model, folder, auto_class, family, precision, runtime, device, max_length)
            return backend(checkpoint, threads=threads)

    if not measured:
        return load_in(fixed)
    width = getattr(read_config(transformer).get_text_config(), "hidden_size", DEFAULT_WIDTH)
    files = sorted((*transformer.glob("*.safetensors"), *transformer.glob("*.json")))
    return load_measured(load_in, partial(measure_product, width, device), memory_of(folder, files, family, device))


@contextmanager
def _failures_in_words(model: str, folder: Path, family: str) -> Iterator[None]:
    """Refuses a model whose code in transformers raises what nobody expects, with the error's first line."""
    try:
        yield
    except FedbbptError:
        raise
    except Exception as error:  # each architecture fails in its own way
        log.debug("loading %s failed", model, exc_info=True)
        kind, why = read_config(folder).model_type, f"{type(error).__name__}: {first_line(error)}"
        what = f"a model of the type {kind!r} cannot be served as a {family}: {why}"
        raise InvalidInput(what, where=model, fix="another model, or another --family") from None


def family_of(folder: Path) -> str:
    """Returns the family of a checkpoint by its architecture.

    An encoder-decoder that is named as a plain model (`BartModel`) has a head, which shares the weights of the word
    embeddings. A model that also reads images or sound (`Gemma3ForConditionalGeneration`) is the language model within
    it, if transformers loads that.
    """
    if is_sentence_encoder(folder):  # its config.json may name the masked LM that it was made from
        return "dual-encoder"
    config = read_config(folder)
    names = [name for name in config.architectures or [] if isinstance(name, str)]
    name, family = next(
        ((name, family) for name in names for ending, family in ARCHITECTURE_SUFFIXES.items() if name.endswith(ending)),
        ("", ""),
    )
    if family == "dual-encoder" and config.is_encoder_decoder and not name.endswith("EncoderModel"):
        return "seq2seq-lm"
    if family == "seq2seq-lm" and not config.is_encoder_decoder:
        if config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            return "causal-lm"
        what = f"{name} reads more than text, and transformers does not load its language model alone"
        raise InvalidInput(what, where=str(folder), fix="a text model, or an encoder-decoder such as T5")
    if not family:
        raise InvalidInput(
            f"no family is known for the architectures {names}",
            where=str(folder),
            fix=f"--family, one of {', '.join(FAMILIES)}",
        )
    return family
