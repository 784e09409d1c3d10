"""A model in closed form, for tests and examples: it needs only numpy, loads in a millisecond, and can be tuned.

A text is a hashed bag of words: x `[D]` is the sum of its words' vectors, scaled to length 1, and c_k `[D]` is the same
for class k. A prompt V `[L, D]` is a map that turns texts towards classes:

    score_k(V, x) = 4 c_k . (x + V^T (A x) / sqrt(L)),   A `[L, D]` random and fixed

Scores are linear in V, so the cross-entropy is smooth and convex in z, and a search can lower it. The model has neither
positions nor a LayerNorm, so all injections into the text are the same.

The products c_k . x and A x belong to an input, and V c_k to a prompt. Both are kept, because a simulation asks about
the same inputs in every round, and about the same prompts for every client. A pair then costs K x L multiplications.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt import seeds
from fedbbpt.errors import InvalidTensor
from fedbbpt.limits import MAX_EXAMPLES, MAX_MESSAGE_BYTES, MAX_PROMPTS
from fedbbpt.prompts.projection import project
from fedbbpt.ptm.models.template import check_pairs, forbid_mask, parse
from fedbbpt.ptm.models.text.truncation import perturb, truncate
from fedbbpt.ptm.scheduling.planner import PlannedJob, pair_lengths
from fedbbpt.types import (
    TEXT_MODEL_PROMPTS,
    Examples,
    Injection,
    LatentPrompts,
    MicroBatch,
    ModelCard,
    Perturbation,
    Precision,
    PromptKind,
    Prompts,
    Scores,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)
from fedbbpt.types.digests import digest

WIDTH = 32
VOCABULARY = 4096
MAX_TOKENS = 512
LOGIT_SCALE = 4.0

Vector = npt.NDArray[np.float32]


@lru_cache(maxsize=1)
def _tables() -> tuple[Vector, Vector]:
    """Returns the word vectors `[vocabulary, D]`, of standard deviation 1 / sqrt(D), and A `[max_tokens, D]`."""
    words = seeds.normals(1, (VOCABULARY, WIDTH)) / np.sqrt(WIDTH)
    return words.astype(np.float32), seeds.normals(2, (MAX_TOKENS, WIDTH)).astype(np.float32)


def _words(text: str) -> list[int]:
    """Returns a text's tokens: its words, each hashed to an id."""
    found = re.findall(r"\w+|[^\w\s]", text.lower())
    return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") % VOCABULARY for word in found]


def _bag(tokens: Sequence[int]) -> Vector:
    total: Vector = _tables()[0][list(tokens)].sum(axis=0)
    return total / max(np.float32(np.sqrt((total * total).sum())), np.float32(1e-6))


class FakeRow(tuple[int, ...]):
    """The word ids of a prepared example."""

    cut_tokens = 0
    """Number of words that were cut off."""
    bag: Vector | None = None
    """x `[D]`; None until it is needed."""
    seen: Vector | None = None
    """The first entries of A x, as many as the longest prompt so far has tokens; None before the first prompt."""
    plain: tuple[TaskSpec, Vector] | None = None
    """c x `[K]` with the classes of the task that was asked last."""

    def turns(self, tokens: int) -> Vector:
        """Returns the first `tokens` entries of A x."""
        if self.seen is None or len(self.seen) < tokens:
            self.seen = (_tables()[1][:tokens] * self._bag()).sum(axis=1)
        return self.seen[:tokens]

    def scores(self, task: TaskSpec, classes: Vector) -> Vector:
        """Returns c x `[K]`, the scores without a prompt, for classes c `[K, D]`."""
        if self.plain is None or self.plain[0] != task:
            self.plain = task, (classes * self._bag()).sum(axis=1)
        return self.plain[1]

    def _bag(self) -> Vector:
        if self.bag is None:
            self.bag = _bag(self)
        return self.bag


class Fake:
    """Implements interfaces.Backend; a prepared example is the tuple of its word ids."""

    threads = 1
    hidden_size = 0

    def __init__(self, *, token_budget: int = 1 << 16) -> None:
        """`token_budget`: most tokens of a micro-batch; a single pair may exceed it."""
        self._token_budget = token_budget
        self._sides = lru_cache(maxsize=4)(_class_sides)

    def describe(self) -> ModelCard:
        return ModelCard(
            model="fake",
            revision="fake-2",
            family="fake",
            prompt_kinds=TEXT_MODEL_PROMPTS,
            injections=frozenset(Injection) - {Injection.CLASS},
            max_tokens=MAX_TOKENS,
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=WIDTH,
            score_noise=0.0,
            precision=Precision.FLOAT32,
        )

    def check(self, task: TaskSpec) -> None:
        forbid_mask(parse(task))

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple((text,) for text in task.classes)

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[FakeRow]:
        check_pairs(task, examples)
        rows = []
        for index, text in enumerate(examples.texts):
            pair = _words(examples.pairs[index]) if examples.pairs is not None else []
            words = _words(text)
            kept = truncate(words, MAX_TOKENS - prompt_tokens - len(pair), index)
            tokens = kept + pair
            if perturbation is not None:
                rng = seeds.rng(perturbation.seed, "perturbation", index)
                tokens = perturb(tokens, perturbation, rng, np.arange(VOCABULARY))
            row = FakeRow(tokens)
            row.cut_tokens = len(words) - len(kept)
            rows.append(row)
        return rows

    def tokens(self, row: FakeRow) -> int:
        return len(row)

    def identity(self, row: FakeRow) -> bytes:
        return digest(*row)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        known = self._sides(task, _Content(prompts))
        totals = pair_lengths(known.lengths, [len(row) for row in rows], wanted, max_tokens=MAX_TOKENS)
        of_rows, of_prompts = np.nonzero(wanted.T)
        tokens = totals[of_prompts, of_rows]
        together = max(1, self._token_budget // int(tokens.max(initial=1)))
        number = -(-len(tokens) // together)
        each = np.array_split(np.arange(len(tokens)), number) if number > 1 else [slice(None)]
        batches = [MicroBatch(of_prompts[part], of_rows[part], int(tokens[part].sum())) for part in each]

        def run(batch: MicroBatch) -> Scores:
            longest = max(known.groups)
            plain = np.zeros((len(rows), len(known.classes)), np.float32)
            seen = np.zeros((len(rows), longest), np.float32)
            for row in set(batch.rows.tolist()):
                plain[row], seen[row] = rows[row].scores(task, known.classes), rows[row].turns(longest)
            scores: Scores = plain[batch.rows]
            for length, sides in known.groups.items():
                pairs = np.flatnonzero((known.lengths == length)[batch.prompts])
                turned = sides[known.places[batch.prompts[pairs]]] * seen[batch.rows[pairs], None, :length]
                scores[pairs] += turned.sum(axis=2) / np.float32(np.sqrt(max(1, length)))
            return np.float32(LOGIT_SCALE) * scores

        return PlannedJob(tuple(batches), run)


class _Content:
    """Prompts as a key: equal where the prompts are."""

    def __init__(self, prompts: Prompts) -> None:
        self.prompts, self._key = prompts, tuple(prompts.digests().ravel().tolist())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Content) and self._key == other._key


@dataclass(frozen=True, slots=True)
class _Sides:
    """What the scores need of P prompts, grouped by length, so that no sum depends on the other prompts of a call."""

    classes: Vector
    """c `[K, D]`"""
    lengths: npt.NDArray[np.int64]
    """L of each prompt `[P]`."""
    groups: Mapping[int, Vector]
    """V c `[prompts, K, L]` by L."""
    places: npt.NDArray[np.int64]
    """The place of each prompt in its group `[P]`."""


def _class_sides(task: TaskSpec, content: _Content) -> _Sides:
    classes = np.stack([_bag(_words(text)) for text in task.classes])
    sides = [(classes[:, None] * v).sum(axis=2) for v in _prompts(content.prompts)]
    groups: dict[int, list[Vector]] = {}
    places = []
    for side in sides:
        group = groups.setdefault(side.shape[1], [])
        places.append(len(group))
        group.append(side)
    lengths = np.array([side.shape[1] for side in sides])
    return _Sides(classes, lengths, {length: np.stack(group) for length, group in groups.items()}, np.array(places))


def _prompts(prompts: Prompts) -> Sequence[Vector]:
    """Returns the vectors `[L, D]` of each prompt."""
    embed = _EMBED.get(prompts.kind)
    if embed is None:
        raise prompts.unsupported()
    return embed(prompts)


def _project_latent(prompts: LatentPrompts) -> Sequence[Vector]:
    words, tokens = _tables()[0], prompts.projection.tokens
    initial = np.zeros((tokens, WIDTH), np.float32)
    if ids := _words(prompts.projection.initial_text):
        initial = words[np.resize(ids, tokens)]
    return list(project(prompts.projection, prompts.z, initial, float(words.std())))


def _embed_soft(prompts: SoftPrompts) -> Sequence[Vector]:
    return list(prompts.embeddings)


def _embed_ids(prompts: TokenPrompts) -> Sequence[Vector]:
    if prompts.ids.size and not 0 <= prompts.ids.min() <= prompts.ids.max() < VOCABULARY:
        raise InvalidTensor("a token outside the vocabulary", where="tokens.ids", fix=f"0 to {VOCABULARY - 1}")
    return list(_tables()[0][prompts.ids])


def _embed_texts(prompts: TextPrompts) -> Sequence[Vector]:
    words = _tables()[0]
    return [words[np.array(_words(text)[: MAX_TOKENS + 1], np.int64)] for text in prompts.texts]


_EMBED: Mapping[PromptKind, Callable[[Any], Sequence[Vector]]] = {
    PromptKind.LATENT: _project_latent,
    PromptKind.SOFT: _embed_soft,
    PromptKind.TOKENS: _embed_ids,
    PromptKind.TEXT: _embed_texts,
}
