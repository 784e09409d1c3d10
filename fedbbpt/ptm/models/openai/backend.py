"""Language models behind an HTTP server of OpenAI's protocol (vLLM, SGLang, llama.cpp, OpenAI): prompts of words.

A pair is the filled template as text, and a class scores by the log-probability of its label word as the next token,
measured against the whole vocabulary: the softmax over the classes is the model's distribution over them. A label that
the server does not tell fails the call; it is never 0 and never guessed.
"""

import hashlib
import json
import logging
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import (
    InvalidExamples,
    InvalidInput,
    InvalidTask,
    PromptTooLong,
    PtmUnavailable,
    ScoreUnavailable,
    Unauthenticated,
    WrongService,
)
from fedbbpt.limits import MAX_EXAMPLES, MAX_PROMPTS
from fedbbpt.ptm.checks import MAX_MESSAGE_BYTES, unsupported
from fedbbpt.ptm.digests import digest
from fedbbpt.ptm.models.openai.completions import Completions, LabelWord, NextToken
from fedbbpt.ptm.models.openai.filled_template import FilledTemplate, TemplateFiller
from fedbbpt.ptm.models.openai.http import Server
from fedbbpt.ptm.models.openai.self_test import self_test
from fedbbpt.ptm.models.template import Placeholder, check_pairs, parse
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.types import (
    Examples,
    MicroBatch,
    ModelCard,
    Perturbation,
    PromptKind,
    Prompts,
    Scores,
    TaskSpec,
    TextPrompts,
)

log = logging.getLogger(__name__)

SPELLING = "openai:MODEL@http://HOST:PORT/v1"
KEY_VARIABLE = "OPENAI_API_KEY"
CONCURRENT_REQUESTS = 8
"""At a time, unless said otherwise."""
MAX_TOKENS = 2048
"""Of a text, where the server does not tell; it refuses what is too long for it."""
BYTES_PER_TOKEN = 3
"""Where the server counts no tokens. English has four or five, many other languages two or three."""
MAX_LABELS = 128
"""What vLLM takes as logprob_token_ids."""

_VERSION = 1
"""Of what is asked here; a part of the revision."""
_REVISION_FIELDS = ("id", "root", "parent", "owned_by", "max_model_len", "meta")
"""Of a listed model. `created` is no property of it: most servers give the time of the question."""


def connect(
    model: str, key: str = "", *, threads: int = 0, pause: Callable[[float], None] = time.sleep
) -> "OpenAICompatible":
    """`model` in the form SPELLING; without a `key` that of the environment, if any. Raises InvalidInput."""
    found = re.fullmatch(r"openai:(.+?)@(https?://.+)", model)
    if found is None:
        raise InvalidInput(f"no model of a server: {model.partition('//')[0]!r}", where="model", fix=SPELLING)
    threads = threads or CONCURRENT_REQUESTS
    server = Server(found[2], key or os.environ.get(KEY_VARIABLE, "").strip(), connections=threads, pause=pause)
    try:
        return OpenAICompatible(server, found[1], threads=threads)
    except BaseException:
        server.close()
        raise


class OpenAICompatible:
    """Implements interfaces.Backend; `threads` are requests at a time."""

    family = "openai-compatible"
    hidden_size = 0

    def __init__(
        self, server: Server, model: str, *, threads: int = CONCURRENT_REQUESTS, max_tokens: int = MAX_TOKENS
    ) -> None:
        """Raises InvalidInput for a model that the server does not have, and whatever its self-test finds.

        `max_tokens` counts where the server does not tell.
        """
        self.threads = threads
        self._server = server
        listed = _find(server, model)
        self._completions = Completions(server, model)
        self._form, noise = self_test(self._completions)
        self._labels = lru_cache(maxsize=256)(self._find_labels)
        told = listed.get("max_model_len")
        self._card = ModelCard(
            model=model,
            revision=_revision(server, listed, self._completions.identity),
            family=self.family,
            prompt_kinds=frozenset({PromptKind.TEXT}),
            injections=frozenset(),
            max_tokens=(told if type(told) is int and told > 1 else max_tokens) - 1,  # one more is asked for
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=0,
            score_noise=noise,
        )

    def close(self) -> None:
        self._server.close()

    def describe(self) -> ModelCard:
        return self._card

    def check(self, task: TaskSpec) -> None:
        if any(piece.placeholder is Placeholder.MASK for piece in parse(task)[:-1]):
            raise InvalidTask("{mask} before the end", where="template", fix='"{prompt} {text} Sentiment: {mask}"')
        if self._form.requests_label_ids and len(task.classes) > MAX_LABELS:
            raise InvalidTask(f"{len(task.classes)} classes", where="classes", fix=f"at most {MAX_LABELS}")
        self._labels(task)

    def columns(self, task: TaskSpec) -> frozenset[str]:
        return frozenset(label.text if label.id is None else str(label.id) for label in self._labels(task))

    def _find_labels(self, task: TaskSpec) -> tuple[LabelWord, ...]:
        """As they are tokenised behind the end of the template."""
        pieces = parse(task)
        space = pieces[-1].text if pieces[-1].placeholder is Placeholder.MASK else ""
        ends = [piece for piece in pieces if piece.placeholder is not Placeholder.MASK][-1]
        with _server_trouble_is_unavailability():
            return self._completions.labels(ends.text if ends.placeholder is None else ".", space, task.classes)

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[FilledTemplate]:
        if perturbation is not None:
            what = "random tokens of a vocabulary that is not known here"
            raise InvalidExamples(what, where="perturbation", fix="none; a model behind HTTP takes texts as they are")
        check_pairs(task, examples)
        filler, room = (
            TemplateFiller(parse(task), partial(self._count, special=True)),
            self._card.max_tokens - prompt_tokens,
        )
        indices = range(len(examples))
        pairs = examples.pairs or [""] * len(examples)
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda i: filler.fill(examples.texts[i], pairs[i], room, i), indices))

    def _count(self, text: str, *, special: bool = False) -> int:
        if self._completions.has_tokenizer:
            with _server_trouble_is_unavailability():
                return len(self._completions.tokenise(text, special=special)) if text else 0
        return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)

    def tokens(self, row: FilledTemplate) -> int:
        return row.tokens

    def identity(self, row: FilledTemplate) -> bytes:
        return digest(row.before, row.space, row.after)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FilledTemplate], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        """Pairs of one request begin alike, as far as the template allows it: servers keep what they have read."""
        if not isinstance(prompts, TextPrompts):
            raise unsupported(prompts)
        with ThreadPoolExecutor(self.threads) as pool:
            lengths = list(pool.map(self._count, prompts.texts))
        totals = np.add.outer(np.array(lengths, np.int64), np.array([row.tokens for row in rows], np.int64))  # [P, B]
        for prompt, row in np.argwhere(wanted & (totals > self._card.max_tokens))[:1]:
            raise PromptTooLong(
                f"{lengths[prompt]} prompt tokens and {rows[row].tokens} input tokens",
                where=f"prompts[{prompt}], examples[{row}]",
                fix=f"at most {self._card.max_tokens} together; register the examples with room for the prompt",
            )
        pieces = [piece.placeholder for piece in parse(task)]
        prompt_first = pieces.index(Placeholder.PROMPT) < pieces.index(Placeholder.TEXT)
        pairs = np.argwhere(wanted) if prompt_first else np.argwhere(wanted.T)[:, ::-1]
        size = min(self._form.texts_per_request, -(-len(pairs) // self.threads))  # no thread is left without
        parts = np.array_split(pairs, -(-len(pairs) // size)) if size else []
        labels = self._labels(task)

        def run(batch: MicroBatch) -> Scores:
            named = list(zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True))
            with _server_trouble_is_unavailability():
                found = self._completions.next_tokens(
                    [rows[b].text(prompts.texts[p]) for p, b in named], labels, self._form
                )
            scores = [_scores(one, labels, *pair) for one, pair in zip(found, named, strict=True)]
            return np.array(scores, np.float32)

        batches = [MicroBatch(part[:, 0], part[:, 1], int(totals[part[:, 0], part[:, 1]].sum())) for part in parts]
        return PlannedJob(tuple(batches), run)


@contextmanager
def _server_trouble_is_unavailability() -> Iterator[None]:
    """What went well in the self-test and does not now is no fault of the caller's."""
    try:
        yield
    except (Unauthenticated, WrongService) as error:
        log.error("%s", error)
        raise PtmUnavailable(error.what, where=error.where, fix="a look into the service's log") from None


def _scores(found: NextToken, labels: Sequence[LabelWord], prompt: int, row: int) -> list[float]:
    """`[K]`"""
    scores = [found.score(label) for label in labels]
    if missing := [label.text for label, score in zip(labels, scores, strict=True) if score is None]:
        what = f"the model's server gives no log-probability for {missing}"
        fix = "label words that are likelier there, or a server that gives them for tokens that are asked for"
        raise ScoreUnavailable(what, where=f"prompts[{prompt}], examples[{row}]", fix=fix)
    return [score for score in scores if score is not None]


def _find(server: Server, model: str) -> Mapping[str, Any]:
    """What the server says of the model."""
    data = server.get(f"{server.url}/models").get("data")
    listed = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    found = next((one for one in listed if one.get("id") == model), None)
    if found is None:
        names = ", ".join(str(one.get("id")) for one in listed[:10])
        raise InvalidInput(f"the server has no model {model!r}", where="model", fix=f"one of {names}")
    return found


def _revision(server: Server, listed: Mapping[str, Any], identity: tuple[str, str] | None) -> str:
    """Nobody sees the weights, so it is of all that server and model say of themselves, and of their address."""
    told = {name: listed[name] for name in _REVISION_FIELDS if name in listed}
    text = json.dumps([_VERSION, server.url, told, identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
