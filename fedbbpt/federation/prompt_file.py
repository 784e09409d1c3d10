"""The tuned prompt as a file: z in safetensors, with a model card inside it, and the same card for people beside it."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.prompts import Space
from fedbbpt.prompts.text import TextSpace
from fedbbpt.types import Examples, Precision, TaskSpec


class PromptCard(BaseModel):
    """What one must know to use the prompt, and to trust it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    method: str
    ptm: str
    ptm_revision: str
    """Scores were measured with this revision; another may answer otherwise."""
    ptm_precision: Precision = Precision.FLOAT32
    template: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    space: Annotated[Space, Field(discriminator="kind")]
    seed: int
    rounds: int
    best_round: int
    clients: int
    examples: int
    queries: int
    dev_loss: float
    dev_accuracy: float | None
    """None where the PTM gave the clients losses only."""

    def task(self) -> TaskSpec:
        return TaskSpec(self.template, self.classes)


def write_prompt(path: Path, z: npt.NDArray[np.float32], card: PromptCard) -> None:
    """Writes PATH and, for people, the card beside it as .md."""
    path.write_bytes(save({"z": z}, metadata={"card": card.model_dump_json()}))
    path.with_suffix(".md").write_text(_page(card, z), encoding="utf-8")


def read_prompt(path: Path) -> tuple[npt.NDArray[np.float32], PromptCard]:
    """z `[n]` and its card. Raises InvalidInput naming the file."""
    fix = "the prompt.safetensors of a finished run"
    try:
        with safe_open(path, framework="numpy") as file:
            z, card = file.get_tensor("z"), (file.metadata() or {}).get("card", "")
        if z.ndim != 1 or z.dtype != np.float32 or not np.isfinite(z).all():
            raise InvalidInput(f"z is {z.dtype} {z.shape}", where=str(path), fix="finite float32 [n]")
        read = PromptCard.model_validate_json(card)
        if len(z) != read.space.dim:
            raise InvalidInput(f"{len(z)} numbers for {read.space.dim}", where=str(path), fix=fix)
        return z, read
    except (OSError, SafetensorError, ValidationError) as error:
        raise InvalidInput(f"not a prompt: {error}", where=str(path), fix=fix) from None


def _page(card: PromptCard, z: npt.NDArray[np.float32]) -> str:
    words = f": {card.space.prompts(z[None], Examples()).texts[0]}" if isinstance(card.space, TextSpace) else ""
    accuracy = "-" if card.dev_accuracy is None else f"{card.dev_accuracy:.3f}"
    classes = "\n".join(f"- **{label}**: {text}" for label, text in zip(card.labels, card.classes, strict=True))
    return f"""# A prompt for {card.ptm}

Tuned by {card.clients} clients with {card.method}, without the model's weights and without sharing their data.

| | |
|---|---|
| model | {card.ptm}, revision `{card.ptm_revision}` |
| run | {card.run}, seed {card.seed}, {card.rounds} rounds; this is the prompt of round {card.best_round} |
| data | {card.examples} training examples over {card.clients} clients |
| cost | {card.queries} queries (prompt, example) |
| dev accuracy | {accuracy} (loss {card.dev_loss:.4f}); the round was chosen on these examples |
| prompt | {card.space}{words} |
| template | `{card.template}` |

Classes:

{classes}

Use it with `fedbbpt predict --prompt prompt.safetensors`. It fits this model and revision only.
"""
