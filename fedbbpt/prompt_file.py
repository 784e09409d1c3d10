"""The tuned prompt as a file: z in safetensors, with a model card inside it, and the same card for people beside it."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.types import Projection, ProjectionKind, PromptSpace, TaskSpec


class PromptCard(BaseModel):
    """What one must know to use the prompt, and to trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    method: str
    ptm: str
    ptm_revision: str
    """Scores were measured with this revision; another may answer otherwise."""
    template: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    projection: ProjectionKind
    projection_seed: int
    tokens: int
    scale: float
    initial_text: str
    offsets: int = 0
    """How many entries of z, the last ones, are added to the scores of the classes."""
    seed: int
    rounds: int
    best_round: int
    clients: int
    examples: int
    queries: int
    dev_loss: float
    dev_accuracy: float

    def task(self) -> TaskSpec:
        return TaskSpec(self.template, self.classes)

    def space(self, dim: int) -> PromptSpace:
        projection = Projection(self.projection, self.projection_seed, self.tokens, self.scale, self.initial_text)
        return PromptSpace(dim, projection, self.offsets)


def write_prompt(path: Path, z: npt.NDArray[np.float32], card: PromptCard) -> None:
    """Writes PATH and, for people, the card beside it as .md."""
    path.write_bytes(save({"z": z}, metadata={"card": card.model_dump_json()}))
    path.with_suffix(".md").write_text(_page(card, len(z)), encoding="utf-8")


def read_prompt(path: Path) -> tuple[npt.NDArray[np.float32], PromptCard]:
    """z `[n]` and its card. Raises InvalidInput naming the file."""
    fix = "the prompt.safetensors of a finished run"
    try:
        with safe_open(path, framework="numpy") as file:
            z, card = file.get_tensor("z"), (file.metadata() or {}).get("card", "")
        if z.ndim != 1 or z.dtype != np.float32 or not np.isfinite(z).all():
            raise InvalidInput(f"z is {z.dtype} {z.shape}", where=str(path), fix="finite float32 [n]")
        return z, PromptCard.model_validate_json(card)
    except (OSError, SafetensorError, ValidationError) as error:
        raise InvalidInput(f"not a prompt: {error}", where=str(path), fix=fix) from None


def _page(card: PromptCard, dim: int) -> str:
    classes = "\n".join(f"- **{label}**: {text}" for label, text in zip(card.labels, card.classes, strict=True))
    return f"""# A prompt for {card.ptm}

Tuned by {card.clients} clients with {card.method}, without the model's weights and without sharing their data.

| | |
|---|---|
| model | {card.ptm}, revision `{card.ptm_revision}` |
| run | {card.run}, seed {card.seed}, {card.rounds} rounds; this is the prompt of round {card.best_round} |
| data | {card.examples} training examples over {card.clients} clients |
| cost | {card.queries} queries (prompt, example) |
| dev accuracy | {card.dev_accuracy:.3f} (loss {card.dev_loss:.4f}); the round was chosen on these examples |
| prompt | {card.tokens} soft tokens from {dim - card.offsets} numbers by a {card.projection} projection, \
seed {card.projection_seed}, scale {card.scale}; {card.offsets} offsets of the classes' scores |
| begins as | {card.initial_text or "zero vectors"} |
| template | `{card.template}` |

Classes:

{classes}

Use it with `fedbbpt predict --prompt prompt.safetensors --text "..."`. It fits this model and revision only.
"""
