"""Makes a task, examples and prompts that fit the service's card. They are the same on every run."""

import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.types import (
    DeepPrompts,
    Examples,
    ExampleSet,
    ImagePrompts,
    Injection,
    LatentPrompts,
    ModelCard,
    Output,
    Perturbation,
    Projection,
    ProjectionKind,
    PromptKind,
    Prompts,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)

MATERIAL: dict[str, Any] = tomllib.loads(resources.files(__package__).joinpath("inputs.toml").read_text("utf-8"))

LENGTH = 3
"""Length of prompts, in tokens or words."""
ROOM, ROOM_SHARE = 16, 0.25
"""Tokens that texts leave for prompts, and the largest share of a model's tokens. A word may be several tokens."""
DIM = 8
"""Length of z."""
SPREAD = 0.1
"""Standard deviation of soft vectors and of pixel deltas, about that of word embeddings."""
IDS = (5, 25)
"""Range of token ids that every vocabulary has."""
MAX_CLASSES = 3
"""Most classes of the default task."""
# Sizes of prompts of a kind that the card does not list, and so has no sizes for.
ANY_WIDTH, ANY_IMAGE, ANY_PREFIX = 4, (1, 2, 2), (1, 1, 4)

KINDS = (PromptKind.TEXT, PromptKind.LATENT, PromptKind.SOFT, PromptKind.TOKENS, PromptKind.IMAGE, PromptKind.DEEP)
"""All kinds of prompts, in the order in which they are tried."""


class Inputs:
    """Inputs for one card. `template` and `classes` replace the defaults for the card."""

    def __init__(self, card: ModelCard, template: str = "", classes: Sequence[str] = ()) -> None:
        self._card = card
        self._template = template or MATERIAL["templates"].get(card.family, "{prompt} {text}")
        suggested = card.labels[:MAX_CLASSES] or MATERIAL["classes"]
        self._classes = tuple(classes) or tuple(suggested)

    def task(self, *, twin: bool = False, turned: int = 0) -> TaskSpec:
        """Returns the task.

        Args:
            twin: whether to write the same task differently, so that the service cannot answer from its cache.
            turned: how many classes move from the front to the end.
        """
        classes = self._classes[turned:] + self._classes[:turned]
        if not twin:
            return TaskSpec(self._template, classes)
        if self._template.startswith("{prompt}"):
            return TaskSpec(self._template.removeprefix("{prompt}"), classes)
        if "{prompt}" not in self._template:
            return TaskSpec("{prompt}" + self._template, classes)
        return TaskSpec(self._template, classes)

    @property
    def prompt_first(self) -> bool:
        """Whether the template begins with its prompt."""
        return self._template.startswith("{prompt}") or "{prompt}" not in self._template

    def rows(self, halves: int = 2) -> list[int]:
        """Returns enough rows of examples for `halves` handles."""
        least = self._card.min_examples if self._card.output is Output.LOSS_ONLY else 2
        return list(range(min(halves * max(2, least), self._card.max_examples)))

    def examples(self, rows: Sequence[int], *, turned: int = 0, perturbation: Perturbation | None = None) -> ExampleSet:
        """Returns rows of examples. A row is always the same example, with the same class."""
        labels = None
        if self._card.output is Output.LOSS_ONLY:
            labels = np.array([(row - turned) % len(self._classes) for row in rows], np.int64)
        if self._card.image_shape is not None:
            images = [self._image(row) for row in rows]
            stacked = np.stack(images) if images else np.zeros((0, *self._card.image_shape), np.uint8)
            return ExampleSet(Examples(images=stacked), 0, perturbation, labels)
        room = min(ROOM, int(ROOM_SHARE * self._card.max_tokens))
        return ExampleSet(Examples(tuple(map(_text, rows))), room, perturbation, labels)

    def _image(self, row: int) -> npt.NDArray[np.uint8]:
        assert self._card.image_shape is not None
        return seeds.rng(row, "conformance image").integers(0, 256, self._card.image_shape, np.uint8)

    def prompts(
        self,
        kind: PromptKind,
        count: int,
        *,
        seed: str,
        injection: Injection = Injection.PREFIX,
        length: int = LENGTH,
    ) -> Prompts:
        """Returns `count` prompts of a kind. If the card does not list the kind, they have arbitrary sizes."""
        rng = seeds.rng(0, "conformance prompts", seed)
        card = self._card
        match kind:
            case PromptKind.LATENT:
                projection = Projection(ProjectionKind.RADEMACHER, 7, length, 1.0, MATERIAL["initial_text"], injection)
                return LatentPrompts(rng.normal(size=(count, DIM)).astype(np.float32), projection)
            case PromptKind.SOFT:
                shape: tuple[int, ...] = (count, length, card.embedding_width or ANY_WIDTH)
                return SoftPrompts(rng.normal(0, SPREAD, shape).astype(np.float32), injection)
            case PromptKind.TOKENS:
                return TokenPrompts(rng.integers(*IDS, (count, length), np.int32))
            case PromptKind.TEXT:
                # Prompts of different lengths.
                words = [rng.choice(MATERIAL["prompts"], length + index % 3) for index in range(count)]
                return TextPrompts(tuple(" ".join(each) for each in words))
            case PromptKind.IMAGE:
                shape = (count, 1, *(card.image_shape or ANY_IMAGE))
                return ImagePrompts(rng.normal(0, SPREAD, shape).astype(np.float32))
            case PromptKind.DEEP:
                layers, heads, width = card.prefix_shape or ANY_PREFIX
                shape = (count, layers, 2, heads, length, width)
                return DeepPrompts(rng.normal(0, SPREAD, shape).astype(np.float32))


def _text(row: int) -> str:
    """Returns the text of a row. All texts differ, and many differ in length."""
    parts, rest, turned = [], row, 0
    for name in ("subjects", "verdicts", "tails", "openings"):
        rest, index = divmod(rest, len(MATERIAL[name]))
        # Neighbouring rows differ in all parts.
        turned += index
        parts.append(MATERIAL[name][turned % len(MATERIAL[name])])
    subject, verdict, tail, opening = parts
    number = f"number {rest}" if rest else ""
    return " ".join(part for part in (number, opening, subject, verdict, tail) if part)
