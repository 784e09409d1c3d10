"""How much of an accelerator the layers of a large model can use in bfloat16, with random weights. Needs torch.

The layers alone, in batches of equal length: this is what a service on that device could have at best. Ours computes on
CPUs.
"""

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from transformers import AutoModel, LlamaConfig, RobertaConfig

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.turns import Note

PART = "device"
TOKENS = 150
"""Of an input with its prompt."""
BUDGETS = 8192, 16_384, 32_768, 65_536
"""Tokens of a batch, of which the fastest counts."""
SHAPES: Mapping[str, Callable[[], Any]] = {
    "roberta-large": lambda: RobertaConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        vocab_size=50_265,
        max_position_embeddings=514,
    ),
    "llama-2-7b": lambda: LlamaConfig(use_cache=False),  # transformers' own default
    "tiny": lambda: RobertaConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, vocab_size=100
    ),
}
BARS = {"roberta-large": (Bar(0.6), Bar(5))}


def measure(device: str, shape: str, prompts: int, examples: int, repeats: int, note: Note) -> tuple[Figure, ...]:
    """`examples` inputs for each of `prompts`. `device` "cpu" or "cuda"; empty: CUDA's where there is one."""
    device = device or ("cuda" if torch.cuda.is_available() else "")
    share, gain = BARS.get(shape, (None, None))
    names = ("matrix products", "layers", "layers / matrix products", "large batches / a prompt at a time")
    rates = _rates(device, shape, prompts, examples, repeats, note) if device else ((),) * len(names)
    bars, units = (None, None, share, gain), ("TFLOP/s", "TFLOP/s", "x", "x")
    return tuple(
        Figure(PART, f"{shape}: {name}", values, unit, bar)
        for name, values, unit, bar in zip(names, rates, units, bars, strict=True)
    )


def _rates(
    device: str, shape: str, prompts: int, examples: int, repeats: int, note: Note
) -> tuple[tuple[float, ...], ...]:
    config = SHAPES[shape]()
    with torch.inference_mode(), torch.device(device):
        note(f"{device}: matrix products")
        size = 8192 if device == "cuda" else 512
        a, b = torch.randn(2, size, size, dtype=torch.bfloat16)
        peaks = [2 * size**3 / s / 1e12 for s in _seconds(lambda: a @ b, device, repeats)]
        note(f"{device}: {shape}")
        made: Any = AutoModel
        model = made.from_config(config, dtype=torch.bfloat16).eval()
        model.pooler = None
        pairs = torch.randn(prompts * examples, TOKENS, config.hidden_size, dtype=torch.bfloat16)

        def in_batches(count: int) -> None:
            hidden = [model(inputs_embeds=some).last_hidden_state[:, 0, 0] for some in torch.split(pairs, count)]
            torch.cat(hidden).tolist()

        def a_prompt_at_a_time() -> None:
            for some in torch.split(pairs, examples):
                model(inputs_embeds=some).last_hidden_state[:, 0, 0].tolist()  # waits, as its loop does

        counts = sorted({max(1, budget // TOKENS) for budget in BUDGETS})
        fastest = min(counts, key=lambda count: min(_seconds(lambda: in_batches(count), device, 2)))
        large, small = [], []
        for _ in range(repeats):
            large += _seconds(lambda: in_batches(fastest), device, 1)
            small += _seconds(a_prompt_at_a_time, device, 1)
    flops = len(pairs) * TOKENS * _flops_per_token(model, config) / 1e12
    return (
        tuple(peaks),
        tuple(flops / seconds for seconds in large),
        tuple(flops / seconds / median(peaks) for seconds in large),
        tuple(one / other for one, other in zip(small, large, strict=True)),
    )


def _flops_per_token(model: Any, config: Any) -> int:
    """Of matrix products: two for each weight of the layers, and in each layer's attention each token with each."""
    weights = sum(part.weight.numel() for part in model.modules() if isinstance(part, torch.nn.Linear))
    return int(2 * weights + 4 * TOKENS * config.hidden_size * config.num_hidden_layers)


def _seconds(call: Callable[[], Any], device: str, repeats: int) -> list[float]:
    """Of each call, after one that is not timed."""
    found = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return found[1:]
