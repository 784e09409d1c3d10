"""Black-box tuning's own loop on a device: the whole model with a mask and all of its head, a batch for each prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

PRECISIONS: Mapping[str, torch.dtype] = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True)
class PromptAtATimeLoop:
    """A model on a device, asked with vectors that are there before the clock starts. Its scores are not used."""

    model: Any

    def run(self, prompts: int, lengths: Sequence[int]) -> None:
        """Scores `prompts` batches of inputs with these numbers of tokens."""
        weight = self.model.get_input_embeddings().weight
        inputs = torch.zeros(len(lengths), max(lengths), weight.shape[1], dtype=weight.dtype, device=weight.device)
        mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(weight.device)
        with torch.inference_mode():
            for _ in range(prompts):
                self.model(inputs_embeds=inputs, attention_mask=mask).logits[:, -1, :2].tolist()

    def flops(self, tokens: int, length: int) -> float:
        """Returns the floating-point operations of the layers' matrix products for `tokens` tokens.

        Each weight takes two for each token; attention takes four for each layer, each unit of width and each of the
        `length` tokens that a token attends to.
        """
        layers = [part for part in self.model.base_model.modules() if isinstance(part, torch.nn.Linear)]
        weights, config = sum(layer.weight.numel() for layer in layers), self.model.config
        return float(tokens * (2.0 * weights + 4.0 * length * config.hidden_size * config.num_hidden_layers))


def load_loop(folder: Path, precision: str, device: str) -> PromptAtATimeLoop:
    """Loads a checkpoint of a masked or causal language model onto a device, in one of PRECISIONS."""
    auto: Any = AutoModelForMaskedLM if reads_mask(folder) else AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype=PRECISIONS[precision], use_safetensors=True)
    return PromptAtATimeLoop(model.eval().requires_grad_(False).to(device))


def reads_mask(folder: Path) -> bool:
    """Returns whether the checkpoint is a masked language model, whose inputs hold a mask token."""
    return any("MaskedLM" in name for name in AutoConfig.from_pretrained(folder).architectures or ())
