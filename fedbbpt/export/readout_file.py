"""readout.json: how an exported prompt's inputs are made, and how class scores follow from the model's.

docs/guides/elsewhere.md describes every key.
"""

import json
from typing import Any

from fedbbpt.export.plain_model import PlainModel
from fedbbpt.export.tuned import Tuned

NAME = "readout.json"
FORMAT = 1
"""Counts incompatible changes of the file."""


def describe(tuned: Tuned) -> dict[str, Any]:
    """Returns the keys that need no model: classes, and the linear map from scores to them."""
    card = tuned.card
    return {
        "format": FORMAT,
        "model": card.ptm,
        "revision": card.ptm_revision,
        "labels": card.labels,
        "classes": card.classes,
        "columns": card.columns,
        "weights": tuned.weights.tolist(),
        "bias": tuned.bias.tolist(),
    }


def describe_inputs(plain: PlainModel) -> dict[str, Any]:
    """Returns the keys that say how inputs are made and scored."""
    inputs = [
        {"template": each.template, "prompt": each.prompted, "end": each.end, "remove": each.remove, "at": each.at}
        for each in plain.inputs
    ]
    return {
        "label_tokens": plain.label_tokens,
        "read": "last" if plain.causal else "mask",
        "mask_token": None if plain.causal else plain.tokenizer.mask_token_id,
        "max_tokens": plain.max_tokens,
        "inputs": inputs,
    }


def text_of(content: dict[str, Any]) -> str:
    """Returns the file's text, with one key on each line."""
    lines = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"
