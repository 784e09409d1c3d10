"""Writes checkpoints with random weights and a tokenizer that knows the words of the workload."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    LlamaConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    set_seed,
)
from transformers.utils import logging

from fedbbpt.bench.ptm.workload import WORDS

CLASSES = "bad", "great"
MAX_TOKENS = 512


def _roberta(width: int, layers: int, heads: int, vocabulary: int) -> Any:
    return RobertaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=vocabulary,
        max_position_embeddings=MAX_TOKENS + 2,
    )


def _small_llama() -> Any:
    return LlamaConfig(
        vocab_size=len(_tokenizer(mask=False)),
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=12,
        max_position_embeddings=MAX_TOKENS,
    )


SHAPES: Mapping[str, Callable[[], Any]] = {
    "roberta-large": lambda: _roberta(1024, 24, 16, 50_265),
    "llama-2-7b": LlamaConfig,  # the defaults of transformers are those of Llama-2-7B
    "tiny": lambda: _roberta(64, 2, 2, 100),
}
"""The configurations of models to measure on a device, by name."""
SMALL_LLAMA = "small-llama"
"""A Llama of 6 layers and width 384."""


def save_random_model(shape: str, folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a checkpoint with random weights into `folder`, and returns the folder.

    `shape` is one of SHAPES, or SMALL_LLAMA.
    """
    config = _small_llama() if shape == SMALL_LLAMA else SHAPES[shape]()
    masked = isinstance(config, RobertaConfig)
    tokenizer = _tokenizer(mask=masked)
    config.pad_token_id, config.bos_token_id = tokenizer.pad_token_id, None
    config.eos_token_id = tokenizer.eos_token_id
    auto: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    set_seed(0)
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers gives it no types
    auto.from_config(config, dtype=dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer(*, mask: bool) -> Any:
    """Returns a tokenizer that splits at white space."""
    names = {"unk_token": "<unk>", "pad_token": "<pad>", "eos_token": "</s>"} | (
        {"mask_token": "<mask>"} if mask else {}
    )
    vocabulary = {word: i for i, word in enumerate((*names.values(), *WORDS, *CLASSES))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token=names["unk_token"]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made: Any = PreTrainedTokenizerFast
    return made(tokenizer_object=words, model_max_length=MAX_TOKENS, **names)
