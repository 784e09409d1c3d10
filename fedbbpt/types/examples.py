"""Inputs with and without labels, and the task to which they belong."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidExamples, InvalidTask, PromptTooLong
from fedbbpt.limits import MAX_CLASSES, MAX_FILLED_CHARACTERS, MAX_TASK_CHARACTERS, MAX_TEXT_CHARACTERS
from fedbbpt.types.digests import digest
from fedbbpt.types.prompt_checks import SURROGATES
from fedbbpt.types.ptm import ModelCard


class ExampleKind(StrEnum):
    """The kinds of inputs that models read."""

    TEXTS = "texts"
    IMAGES = "images"


@dataclass(frozen=True, slots=True)
class Examples:
    """B inputs without labels, as the PTM sees them: texts, texts with second texts, or images."""

    texts: tuple[str, ...] = ()
    pairs: tuple[str, ...] | None = None
    """The second text of each example, or None if the examples have none."""
    images: npt.NDArray[np.uint8] | None = None
    """`[B, C, H, W]`, 0 to 255, in place of texts."""

    def __len__(self) -> int:
        """Returns B."""
        return len(self.texts) if self.images is None else len(self.images)

    @property
    def kind(self) -> ExampleKind:
        """Whether the examples are texts or images."""
        return ExampleKind.TEXTS if self.images is None else ExampleKind.IMAGES

    @property
    def image_shape(self) -> tuple[int, ...] | None:
        """(C, H, W) of the images; None for texts."""
        return None if self.images is None else self.images.shape[1:]

    @property
    def text_pairs(self) -> list[tuple[str, str]]:
        """Each text with its second text, or with an empty one."""
        return list(zip(self.texts, self.pairs or ("",) * len(self.texts), strict=True))

    def pixels(self) -> npt.NDArray[np.uint8]:
        """Returns the images `[B, C, H, W]`. Raises InvalidExamples for texts."""
        if self.images is None:
            raise InvalidExamples("texts", where="examples", fix="images, which this model takes")
        return self.images

    def take(self, rows: npt.NDArray[np.int64]) -> "Examples":
        """Returns the examples with these indices, in this order."""
        if self.images is not None:
            return Examples(images=self.images[rows])
        pairs = None if self.pairs is None else tuple(self.pairs[i] for i in rows)
        return Examples(tuple(self.texts[i] for i in rows), pairs)

    def digests(self) -> list[bytes]:
        """Returns a digest of each example."""
        if self.images is not None:
            return [digest("image", str(image.shape), image.tobytes()) for image in self.images]
        return [digest("text", text, pair) for text, pair in self.text_pairs]

    def check(self, card: ModelCard) -> None:
        """Raises InvalidExamples if the model of `card` does not take such inputs."""
        if (self.image_shape is None) != (card.image_shape is None):
            wanted = ExampleKind.TEXTS if card.image_shape is None else ExampleKind.IMAGES
            raise InvalidExamples(self.kind, where="examples", fix=f"{wanted}, which this model takes")
        if self.image_shape != card.image_shape:
            what = f"images of {self.image_shape}"
            raise InvalidExamples(what, where="examples", fix=f"(C, H, W) = {card.image_shape}")
        if self.pairs is not None and len(self.pairs) != len(self):
            what = f"{len(self.pairs)} second texts for {len(self)} examples"
            raise InvalidExamples(what, where="text_pair", fix="one for each example, or none at all")
        _check_texts(self.texts, "text")
        _check_texts(self.pairs or (), "text_pair")


def _check_texts(texts: Sequence[str], name: str) -> None:
    for row, text in enumerate(texts):
        where = f"examples[{row}].{name}"
        if not text.strip():
            raise InvalidExamples("an empty text", where=where, fix="leave the example out")
        if len(text) > MAX_TEXT_CHARACTERS:
            raise InvalidExamples(f"{len(text)} characters", where=where, fix=f"at most {MAX_TEXT_CHARACTERS}")
        if SURROGATES.search(text):
            raise InvalidExamples("half a character", where=where, fix="Unicode text")


@dataclass(frozen=True, slots=True)
class LabelledExamples:
    """B inputs with their classes. Only their owner has the labels."""

    examples: Examples
    labels: npt.NDArray[np.int64]
    """Indices of classes, `[B]`."""

    def __len__(self) -> int:
        """Returns B."""
        return len(self.examples)

    def take(self, rows: npt.NDArray[np.int64]) -> "LabelledExamples":
        """Returns the examples with these indices, in this order."""
        return LabelledExamples(self.examples.take(rows), self.labels[rows])


def concatenate(parts: Sequence[LabelledExamples]) -> LabelledExamples:
    """Returns the examples of all parts, which are of one kind, in order."""
    labels = np.concatenate([part.labels for part in parts])
    if parts[0].examples.kind is ExampleKind.IMAGES:
        return LabelledExamples(Examples(images=np.concatenate([part.examples.pixels() for part in parts])), labels)
    texts = tuple(text for part in parts for text in part.examples.texts)
    pairs = None
    if parts[0].examples.pairs is not None:
        pairs = tuple(pair for part in parts for pair in part.examples.pairs or ())
    return LabelledExamples(Examples(texts, pairs), labels)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class TaskSpec:
    """A classification task of the PTM."""

    template: str
    """The input as text, with the places {prompt}, {text}, {text_pair} and {mask}."""
    classes: tuple[str, ...]
    """A text for each of the K classes: a label word, or a description. Further texts, whose scores only a readout
    uses, may follow."""

    @property
    def id(self) -> str:
        """A digest of the task, 32 hexadecimal digits."""
        text = json.dumps([self.template, list(self.classes)], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def of_classes(self, count: int) -> "TaskSpec":
        """Returns the task with its first `count` texts only, those of the classes."""
        return TaskSpec(self.template, self.classes[:count])

    def check(self) -> None:
        """Raises InvalidTask if the task is too large to be stored."""
        check_class_count(len(self.classes))
        characters = len(self.template) + sum(map(len, self.classes))
        if characters > MAX_TASK_CHARACTERS:
            raise InvalidTask(f"{characters} characters", where="classes", fix=f"at most {MAX_TASK_CHARACTERS}")

    def check_filled(self, count: int) -> None:
        """Raises InvalidExamples if the template is too long to be kept with each of `count` examples."""
        if len(self.template) * count > MAX_FILLED_CHARACTERS:
            what = f"{count} examples in a template of {len(self.template)} characters"
            raise InvalidExamples(what, where="examples", fix="fewer of them")


def check_class_count(count: int) -> None:
    """Raises InvalidTask if a task has too many classes."""
    if count > MAX_CLASSES:
        raise InvalidTask(f"{count} classes", where="classes", fix=f"at most {MAX_CLASSES}")


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Replaces a fraction of each text's tokens by random ones (arXiv 2310.01467, equation 7)."""

    rate: float
    """The fraction, 0 to 1."""
    seed: int


@dataclass(frozen=True, slots=True)
class ExampleSet:
    """Inputs that a PTM keeps for a caller, and how it prepares them for prompts."""

    examples: Examples
    prompt_tokens: int
    """Number of tokens that texts must leave free for a prompt."""
    perturbation: Perturbation | None = None
    labels: npt.NDArray[np.int64] | None = None
    """`[B]`, for a PTM that returns losses only. For all other outputs labels stay with their owner."""

    def __len__(self) -> int:
        """Returns B."""
        return len(self.examples)

    def check(self, card: ModelCard) -> None:
        """Raises InvalidExamples or PromptTooLong if the model of `card` does not take the examples."""
        if not 1 <= len(self) <= card.max_examples:
            raise InvalidExamples(f"{len(self)} examples", where="examples", fix=f"1 to {card.max_examples}")
        self.examples.check(card)
        if self.labels is not None and self.labels.shape != (len(self),):
            what = f"{self.labels.size} labels for {len(self)} examples"
            raise InvalidExamples(what, where="label", fix="one for each example, or none at all")
        if self.prompt_tokens < 0:
            raise InvalidExamples(f"{self.prompt_tokens} prompt tokens", where="prompt_tokens", fix="0 or more")
        if self.prompt_tokens >= card.max_tokens:
            what = f"{self.prompt_tokens} prompt tokens"
            raise PromptTooLong(what, where="prompt_tokens", fix=f"less than {card.max_tokens}")
        self._check_perturbation()

    def _check_perturbation(self) -> None:
        change = self.perturbation
        if change is None:
            return
        if self.examples.kind is ExampleKind.IMAGES:
            raise InvalidExamples("a perturbation of images", where="perturbation", fix="none; it replaces tokens")
        if not (0.0 <= change.rate <= 1.0 and 0 <= change.seed < 2**64):
            raise InvalidExamples(f"{change}", where="perturbation", fix="a rate in [0, 1] and a seed below 2^64")

    def row_digests(self) -> list[bytes]:
        """Returns a digest of each prepared example. Two rows with the same digest are the same to the model."""
        inputs = self.examples.digests()
        if self.perturbation is None:
            return [digest(one, self.prompt_tokens) for one in inputs]
        # Which tokens are replaced depends on the index.
        change = repr(self.perturbation)
        return [digest(one, self.prompt_tokens, change, index) for index, one in enumerate(inputs)]

    def handle_id(self, task_id: str, row_digests: Sequence[bytes]) -> str:
        """Returns a digest of the examples with their labels, as examples of a task; hexadecimal."""
        labels = b"" if self.labels is None else self.labels.tobytes()
        return digest(task_id, labels, b"".join(row_digests)).hex()
