"""Tuned prompts of random models, to export."""

from pathlib import Path

import numpy as np

from fedbbpt.federation.prompt_file import PromptCard, write_prompt
from fedbbpt.prompts import Space
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import Injection, Projection, ProjectionKind

CAUSAL, MASKED = "{prompt} {text} It was {mask}", "{prompt} {text} It was {mask} ."
CLASSES, COLUMNS = ("bad", "fine"), ("good", "great")


def latent(injection: Injection = Injection.PREFIX, *, offsets: int = 2) -> LatentSpace:
    """Returns a space of three soft tokens."""
    return LatentSpace(8, Projection(ProjectionKind.RADEMACHER, 3, 3, 1.0, "a film", injection), offsets)


def deep(heads: int) -> DeepSpace:
    """Returns the space of prefixes of three tokens for the tiny models."""
    return DeepSpace(layers=2, heads=heads, width=8, tokens=3, seed=5, std=0.5)


def with_readout() -> ReadoutSpace:
    """Returns a space with a readout of four columns under two views and a prompt."""
    return ReadoutSpace(latent(offsets=0), ("", "so"), 4, classes=2, columns=4)


def write(folder: Path, model: Path, space: Space, template: str) -> Path:
    """Writes a random prompt of the space, and returns its file."""
    columns = COLUMNS if isinstance(space, ReadoutSpace) else ()
    card = PromptCard(
        run="tiny",
        method="fed-cma",
        ptm=str(model),
        ptm_revision="",
        template=template,
        labels=("no", "yes"),
        classes=CLASSES,
        columns=columns,
        space=space,
        seed=0,
        rounds=1,
        best_round=0,
        clients=2,
        examples=4,
        queries=8,
        dev_loss=None,
        dev_accuracy=None,
    )
    draw = np.random.default_rng(1)
    z = draw.integers(0, 2, space.dim) if isinstance(space, TextSpace) else draw.normal(size=space.dim)
    write_prompt(folder / "prompt.safetensors", z.astype(np.float32), card)
    return folder / "prompt.safetensors"
