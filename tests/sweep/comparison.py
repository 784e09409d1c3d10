"""Compares the product with a plain forward pass, on a tiny random model of a type: word prompts, soft prompts, limits.

python -m tests.sweep FAMILY [TYPE ...]
"""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from fedbbpt.errors import FedbbptError, first_line
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.loading import load
from fedbbpt.types import (
    Examples,
    Injection,
    LatentPrompts,
    Projection,
    ProjectionKind,
    Prompts,
    Scores,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)
from tests.jobs import score
from tests.sweep.plain_forward import Encoded, PlainForward
from tests.sweep.tiny_models import POSITIONS, NotBuilt, save_tiny_model

TEXTS = ("the film was very good", "dull", "who wrote this long book", "a story so fine and so very long")
PROMPTS = ("which kind of", "what place is")
SEVERAL_TOKENS = ("bad", "great film", "very very fine")
CLASSES = {"dual-encoder": ("a number", "a person in paris", "so dull")}
LABEL_WORDS = ("bad", "great", "fine")
TEMPLATES = {
    "masked-lm": "{prompt} {text} it was {mask} .",
    "causal-lm": "{prompt} {text} it was {mask}",
    "seq2seq-lm": "{prompt} {text} it was",
    "sequence-classifier": "{prompt} {text}",
    "dual-encoder": "{prompt} {text}",
}
TOLERANCE = 1e-4
"""Largest difference of scores, as a fraction of the largest score, that counts as right."""

FloatScores = npt.NDArray[np.floating[Any]]


@dataclass
class Outcome:
    """What became of a type: for each check "right", "refused: ...", "off by ..." or "error: ...".

    The check "load" is there only if the model did not load, and "build" if there is no tiny model of the type.
    """

    family: str
    model_type: str
    checks: dict[str, str] = field(default_factory=dict)

    @property
    def built(self) -> bool:
        return "build" not in self.checks

    @property
    def faults(self) -> dict[str, str]:
        """The checks that ended neither right nor in a refusal."""
        sound = ("right", "refused", "not built")
        return {name: found for name, found in self.checks.items() if not found.startswith(sound)}

    def __str__(self) -> str:
        worst = self.faults or {name: found for name, found in self.checks.items() if found != "right"}
        return " | ".join(f"{name}: {found}" for name, found in worst.items()) or "right"


def sweep(family: str, model_type: str, folder: Path) -> Outcome:
    """Saves a tiny model of a type to an empty folder, loads it with the product, and compares all scores."""
    outcome = Outcome(family, model_type)
    try:
        save_tiny_model(family, model_type, folder)
        comparison = _Comparison(family, folder, outcome)
    except NotBuilt as error:
        outcome.checks["build"] = f"not built: {error}"
        return outcome
    try:
        backend = load(str(folder), family=family, threads=1)
    except FedbbptError as error:
        outcome.checks["load"] = f"refused: {_without_folder(error, folder)}"
    except Exception as error:  # any other exception is a fault of the product
        outcome.checks["load"] = f"error: {type(error).__name__}: {first_line(error)}"
    else:
        comparison.run(backend)
    return outcome


def sweep_quietly(case: tuple[str, str]) -> Outcome:
    """Does the same in a folder of its own, for a family and a type, without warnings and bars."""
    warnings.simplefilter("ignore")
    transformers.utils.logging.set_verbosity(50)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # it has no types
    with tempfile.TemporaryDirectory() as folder:
        return sweep(*case, Path(folder))


def _without_folder(error: Exception, folder: Path) -> str:
    return first_line(error).replace(f"{folder}: ", "")


class _Comparison:
    """The checks of one type."""

    def __init__(self, family: str, folder: Path, outcome: Outcome) -> None:
        self._folder, self._outcome = folder, outcome
        self._classes: tuple[str, ...] = CLASSES.get(family, LABEL_WORDS)
        if family == "seq2seq-lm":  # an answer begins without a space
            self._classes = tuple(" " + word for word in LABEL_WORDS)
        self._task = TaskSpec(TEMPLATES[family], self._classes)
        try:
            self._plain = PlainForward(family, folder)
            self._theirs = self._filled(self._classes)
        except Exception as error:  # transformers raises errors of many kinds for sizes that do not fit together
            raise NotBuilt(f"plain forward: {type(error).__name__}: {first_line(error)}") from error
        if not np.isfinite(self._theirs).all() or self._theirs.std(1).max() < 1e-3:
            raise NotBuilt("the scores of all texts are alike, or not finite")

    def run(self, backend: Backend[Any]) -> None:
        """Compares all kinds of prompts that the model's card offers."""
        card, draw = backend.describe(), np.random.default_rng(0)
        self._backend = backend
        self._check("words", TextPrompts(PROMPTS), lambda: self._theirs)
        self._check("words, alone", TextPrompts(PROMPTS), lambda: self._theirs, alone=True)
        ids = 260 + draw.integers(0, 40, (2, 3)).astype(np.int32)
        self._check("tokens", TokenPrompts(ids), lambda: self._with_tokens(ids))
        words = np.stack([self._plain.vectors(row).numpy() for row in ids.tolist()]).astype(np.float32)
        if Injection.PLACE in card.injections:
            placed = SoftPrompts(words, Injection.PLACE)
            self._check("vectors of words", placed, lambda: self._with_tokens(ids))
        vectors = (words.std() * draw.standard_normal(words.shape)).astype(np.float32)
        self._check("vectors", SoftPrompts(vectors), lambda: self._with_vectors(vectors))
        initial = self._plain.tokenise(PROMPTS[0])
        projection = Projection(ProjectionKind.RADEMACHER, 7, len(initial), 1.0, initial_text=PROMPTS[0])
        # `concat` gives words no positions; prompts in class texts are compared in tests/unit/ptm/models.
        for injection in sorted(card.injections - {Injection.CONCAT, Injection.CLASS}):
            zero = LatentPrompts(np.zeros((1, 10), np.float32), replace(projection, injection=injection))
            self._check(f"latent, {injection}", zero, lambda: self._with_tokens([initial], in_front=True))
        self._check("limit", TextPrompts(PROMPTS[:1]), lambda: self._at_limit(card.max_tokens), texts=(LONG_TEXT,))
        if self._plain.family in ("causal-lm", "seq2seq-lm"):
            task = replace(self._task, classes=SEVERAL_TOKENS)
            self._check("several tokens", TextPrompts(PROMPTS), lambda: self._filled(SEVERAL_TOKENS), task=task)

    def _check(
        self,
        name: str,
        prompts: Prompts,
        theirs: Callable[[], FloatScores],
        *,
        task: TaskSpec | None = None,
        texts: Sequence[str] = TEXTS,
        alone: bool = False,
    ) -> None:
        try:
            ours = self._ask(prompts, task or self._task, tuple(texts), alone)
        except FedbbptError as error:
            self._outcome.checks[name] = f"refused: {_without_folder(error, self._folder)}"
            return
        except Exception as error:  # any other exception is a fault of the product
            self._outcome.checks[name] = f"error: {type(error).__name__}: {first_line(error)}"
            return
        try:
            right = theirs()
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            if not isinstance(prompts, SoftPrompts):
                raise
            self._outcome.checks[name] = f"off: a plain forward takes no vectors: {first_line(error)}"
            return
        gap = float(np.abs(ours - right).max() / max(1.0, float(np.abs(right).max())))
        self._outcome.checks[name] = "right" if gap < TOLERANCE else f"off by {gap:.2g}"

    def _ask(self, prompts: Prompts, task: TaskSpec, texts: tuple[str, ...], alone: bool) -> Scores:
        self._backend.check(task)
        room = max(3, len(self._plain.tokenise(PROMPTS[0])))
        parts = [
            score(self._backend, task, prompts, self._backend.prepare(task, Examples(part), room, None))
            for part in ([(text,) for text in texts] if alone else [texts])
        ]
        return np.concatenate(parts, axis=1)

    def _fill(self, prompt: str, text: str) -> str:
        """Returns the template with prompt and text; for causal models without the white space before {mask}."""
        mask = self._plain.tokenizer.mask_token if self._plain.family == "masked-lm" else ""
        return self._task.template.format(prompt=prompt, text=text, mask=mask).rstrip()

    def _filled(self, classes: Sequence[str]) -> FloatScores:
        encoded = [[self._plain.encode(self._fill(prompt, text)) for text in TEXTS] for prompt in PROMPTS]
        return np.array([[self._plain.scores(one, classes) for one in row] for row in encoded])

    def _without_prompts(self) -> Iterator[tuple[Encoded, int]]:
        """Yields the encoded input of each text without a prompt, and the index at which a prompt of words joins."""
        marker = self._plain.tokenise("which")
        for text in TEXTS:
            encoded = self._plain.encode(self._fill("which", text))
            ids, length = encoded["input_ids"], len(marker)
            at = next(i for i in range(len(ids)) if ids[i : i + length] == marker)
            yield {name: values[:at] + values[at + length :] for name, values in encoded.items()}, at

    def _with_tokens(self, prompts: Any, *, in_front: bool = False) -> FloatScores:
        rows = []
        for prompt in prompts:
            row = []
            for encoded, place in self._without_prompts():
                at = self._plain.front_index(encoded) if in_front else place
                row.append(self._plain.scores(_join(encoded, at, [int(token) for token in prompt]), self._classes))
            rows.append(row)
        return np.array(rows)

    def _with_vectors(self, prompts: Any) -> FloatScores:
        rows = []
        for prompt in torch.tensor(prompts):
            row = []
            for encoded, _ in self._without_prompts():
                at, words = self._plain.front_index(encoded), self._plain.vectors(encoded["input_ids"])
                joined = torch.cat([words[:at], prompt, words[at:]])
                row.append(self._plain.scores(_join(encoded, at, [0] * len(prompt)), self._classes, joined))
            rows.append(row)
        return np.array(rows)

    def _at_limit(self, max_tokens: int) -> FloatScores:
        """The scores of the longest input, by a model that has read nothing before."""
        self._plain.reload()
        fixed = len(self._plain.encode(self._fill(PROMPTS[0], "story"))["input_ids"]) - 1
        text = " ".join(LONG_TEXT.split()[: max_tokens - fixed])
        encoded = self._plain.encode(self._fill(PROMPTS[0], text))
        if len(encoded["input_ids"]) != max_tokens:
            raise AssertionError("the words of the long text are not one token each")
        return self._plain.scores(encoded, self._classes)[None, None]


LONG_TEXT = "good story " * POSITIONS


def _join(encoded: Encoded, at: int, ids: list[int]) -> Encoded:
    """Inserts tokens into an encoded input; they are attended to, and of the first segment."""
    added = {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}
    return {name: values[:at] + added[name] + values[at:] for name, values in encoded.items()}
