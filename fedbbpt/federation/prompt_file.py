"""The file of a tuned prompt: the vector z in safetensors, a card of how it was tuned, and a page with that card."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.errors import InvalidInput
from fedbbpt.federation.privacy_statement import PrivacyStatement
from fedbbpt.host.files import atomic_write
from fedbbpt.prompts import Space
from fedbbpt.prompts.checks import check_space, check_z
from fedbbpt.prompts.readout import ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.ptm.models.loading import is_elsewhere
from fedbbpt.types import Examples, Precision, PrecisionChoice, TaskSpec

RAISING = 3
"""The most columns that the page names for each class."""


class PromptCard(BaseModel):
    """The card of a prompt: how it was tuned, and everything that is needed to use it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    method: str
    ptm: str
    ptm_revision: str
    """The revision that the prompt was measured with; another may score differently."""
    ptm_precision: str = Precision.FLOAT32
    """Empty if it is not known, for example of a model behind another server."""
    ptm_family: str = Field("", exclude_if=lambda family: not family)
    """`ptm.family` of the job; empty: as the model's architecture suggests."""
    ptm_max_length: int = Field(0, exclude_if=lambda length: not length)
    """`ptm.max_length` of the job; 0: as many tokens as the model takes."""
    template: str
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[str, ...] = Field((), exclude_if=lambda columns: not columns)
    """The texts that a readout needs the scores of, besides those of the classes."""
    space: Annotated[Space, Field(discriminator="kind")]
    seed: int
    rounds: int
    best_round: int
    clients: int
    examples: int
    queries: int
    dev_loss: float | None
    """None if the clients had no dev examples."""
    dev_accuracy: float | None
    """None if the PTM gave the clients losses only."""
    privacy: PrivacyStatement | None = Field(None, exclude_if=lambda stated: stated is None)
    """None if the run added no noise."""

    def model_options(self) -> dict[str, Any]:
        """Returns how to load the model, in the form that `ptm.models.loading.load` takes."""
        known = set(PrecisionChoice)
        precision = PrecisionChoice(self.ptm_precision if self.ptm_precision in known else PrecisionChoice.AUTO)
        return {"family": self.ptm_family, "precision": precision, "max_length": self.ptm_max_length}

    def model(self, named: str = "") -> str:
        """Returns the model to load: the one that the user has named, or else the card's.

        Raises:
            InvalidInput: The user has named none, and the card's is on another server. The texts would go there.
        """
        if not named and is_elsewhere(self.ptm):
            what = f"the prompt's card names a model on another server, {self.ptm}, which would get the texts"
            fix = "the model by name, if you know its server, or a PTM service in its place"
            raise InvalidInput(what, where="the prompt's card", fix=fix)
        return named or self.ptm

    def task(self) -> TaskSpec:
        """Returns the task that the PTM scores."""
        return TaskSpec(self.template, self.classes + self.columns)


def write_prompt(path: Path, z: npt.NDArray[np.float32], card: PromptCard) -> None:
    """Writes the prompt z `[n]` and its card to `path`, and a page for people next to it, with the suffix .md.

    Each file is replaced atomically.
    """
    atomic_write(path, save({"z": z}, metadata={"card": card.model_dump_json()}))
    atomic_write(path.with_suffix(".md"), _page(card, z))


def read_prompt(path: Path) -> tuple[npt.NDArray[np.float32], PromptCard]:
    """Returns the prompt z `[n]` and its card.

    Raises:
        InvalidInput: The file is missing or is not a prompt.
    """
    fix = "the prompt.safetensors of a finished run"
    if path.is_dir():
        raise InvalidInput("a folder, not a prompt", where=str(path), fix=str(path / "prompt.safetensors"))
    try:
        with safe_open(path, framework="numpy") as file:
            z, card = file.get_tensor("z"), (file.metadata() or {}).get("card", "")
        if z.ndim != 1 or z.dtype != np.float32 or not np.isfinite(z).all():
            raise InvalidInput(f"z is {z.dtype} {z.shape}", where=str(path), fix="finite float32 [n]")
        read = PromptCard.model_validate_json(card)
        if len(read.labels) != len(read.classes) or not read.labels:
            what = f"{len(read.labels)} labels for {len(read.classes)} class texts"
            raise InvalidInput(what, where=str(path), fix=fix)
        read.task().check()
        check_space(read.space, len(read.classes))
        texts = len(read.classes) + len(read.columns)
        if isinstance(read.space, ReadoutSpace) and texts != read.space.columns:
            raise InvalidInput(f"{texts} texts for {read.space.columns} columns", where=str(path), fix=fix)
        if len(z) != read.space.dim:
            raise InvalidInput(f"{len(z)} numbers for {read.space.dim}", where=str(path), fix=fix)
        check_z(read.space, z)
        return z, read
    except InvalidInput as error:
        raise InvalidInput(error.what, where=str(path), fix=error.fix) from None
    except (OSError, SafetensorError, ValidationError) as error:
        raise InvalidInput(f"not a prompt: {error}", where=str(path), fix=fix) from None


def _page(card: PromptCard, z: npt.NDArray[np.float32]) -> str:
    words = f": {card.space.prompts(z[None], Examples()).texts[0]}" if isinstance(card.space, TextSpace) else ""
    accuracy = "-" if card.dev_accuracy is None else f"{card.dev_accuracy:.3f}"
    loss = "-" if card.dev_loss is None else f"{card.dev_loss:.4f}"
    raised = (f" (raised by: {'; '.join(texts)})" if texts else "" for texts in raising(card, z))
    named = zip(card.labels, card.classes, raised, strict=True)
    classes = "\n".join(f"- **{label}**: {text}{note}" for label, text, note in named)
    columns = f"\nFurther columns: {'; '.join(card.columns)}\n" if card.columns else ""
    return f"""# A prompt for {card.ptm}

Tuned by {card.clients} clients with {card.method}, without the model's weights and without sharing their data.

| | |
|---|---|
| model | {card.ptm}, revision `{card.ptm_revision}` |
| run | {card.run}, seed {card.seed}, {card.rounds} rounds; this is the prompt of round {card.best_round} |
| data | {card.examples} training examples over {card.clients} clients |
| cost | {card.queries} queries (prompt, example) |
| dev accuracy | {accuracy} (loss {loss}); the round was chosen on these examples |
| prompt | {card.space}{words} |
| a prediction | {_queries(card, z)} for each input |
| template | `{card.template}` |
| privacy | {_privacy(card)} |

Classes:

{classes}
{columns}
Use it with `fedbbpt predict --prompt prompt.safetensors --text "..."`. It fits this model and revision only.
"""


def _privacy(card: PromptCard) -> str:
    """What the run guarantees about its examples, and what it does not."""
    stated = card.privacy
    if stated is None:
        return "no noise was added, and nothing is guaranteed about single examples"
    return (
        f"epsilon {stated.epsilon:.3g}, delta {stated.delta:g}. Covered: {stated.covers}. "
        f"Not covered: {'; '.join(stated.does_not_cover)}."
    )


def _queries(card: PromptCard, z: npt.NDArray[np.float32]) -> str:
    """How many queries a prediction costs: one for each view of a readout, and one if it uses the prompt."""
    count = 1
    if isinstance(card.space, ReadoutSpace):
        count = len(card.space.views) + card.space.uses_prompt(z[None])
    return "1 query" if count == 1 else f"{count} queries"


def raising(card: PromptCard, z: npt.NDArray[np.float32]) -> list[list[str]]:
    """Returns the columns whose scores raise each class the most above the others, under the readout's first view.

    There are none without a readout.
    """
    if not isinstance(card.space, ReadoutSpace) or not card.columns:
        return [[]] * len(card.labels)
    weights = card.space.readouts(z[None])[0, :, len(card.labels) : card.space.columns]  # [K, further columns]
    above = weights - weights.mean(axis=0)
    return [[card.columns[index] for index in row.argsort()[::-1][:RAISING] if row[index] > 0] for row in above]
