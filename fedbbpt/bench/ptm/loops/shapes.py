"""Models of well-known shapes with random weights, on a device. Needs torch."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, LlamaConfig, RobertaConfig

from fedbbpt.bench.ptm.loops.random_models import MAX_TOKENS, tokenizer
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.causal_lm import CausalLM
from fedbbpt.ptm.models.text.masked_lm import MaskedLM
from fedbbpt.types import Precision, Runtime


def _roberta(width: int, layers: int, heads: int, vocabulary: int) -> Any:
    return RobertaConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        vocab_size=vocabulary,
        max_position_embeddings=MAX_TOKENS + 2,
    )


SHAPES: Mapping[str, Callable[[], Any]] = {
    "roberta-large": lambda: _roberta(1024, 24, 16, 50_265),
    "llama-2-7b": LlamaConfig,  # transformers' own default
    "tiny": lambda: _roberta(64, 2, 2, 100),
}


@dataclass(frozen=True, slots=True)
class Shaped:
    backend: MaskedLM | CausalLM
    """In bfloat16."""
    usual: Mapping[str, Any]
    """Models of the same shape as transformers makes them, by their precision."""
    width: int
    weights: int
    """Of the layers."""
    layers: int

    def flops(self, tokens: int, length: int) -> float:
        """Of the matrix products for so many tokens in inputs of one length: two for each weight, and in each layer's
        attention four for each width and token that is looked at."""
        return tokens * (2.0 * self.weights + 4.0 * length * self.width * self.layers)


def make(shape: str, device: str) -> Shaped:
    config = SHAPES[shape]()
    masked = isinstance(config, RobertaConfig)
    auto: Any = AutoModelForMaskedLM if masked else AutoModelForCausalLM
    with torch.device(device):
        model, usual = (auto.from_config(config).eval().requires_grad_(False) for _ in range(2))
    linear = (part for part in model.base_model.modules() if isinstance(part, torch.nn.Linear))
    weights = sum(part.weight.numel() for part in linear)
    known = Checkpoint(
        shape, "", model, tokenizer(mask=masked), MAX_TOKENS, Precision.BFLOAT16, Runtime.TORCH, Path(shape)
    )
    backend = MaskedLM(known) if masked else CausalLM(known)
    loops = {"float32": deepcopy(usual)} if masked else {}  # there may be no room for a large one
    loops["bfloat16"] = usual.to(torch.bfloat16)
    return Shaped(backend, loops, config.hidden_size, weights, config.num_hidden_layers)
