"""Language models of another server that speaks OpenAI's protocol (vLLM, SGLang, llama.cpp, OpenAI), with text prompts.

A pair is sent as text, the filled template, or as chat messages. A class scores by the log-probability of its label
word as the next token, over the whole vocabulary: the softmax over the classes is the model's distribution over them.
If the server does not tell a label word's log-probability, it is asked for more tokens; if that does not help, the
score is the upper bound that follows from the answer, and is marked as such.
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
from dataclasses import replace
from functools import lru_cache, partial
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import (
    InvalidExamples,
    InvalidInput,
    InvalidTask,
    PtmUnavailable,
    Unauthenticated,
    WrongService,
)
from fedbbpt.limits import MAX_EXAMPLES, MAX_MESSAGE_BYTES, MAX_PROMPTS
from fedbbpt.ptm.models.openai.chat import Chat
from fedbbpt.ptm.models.openai.completions import Completions
from fedbbpt.ptm.models.openai.endpoint import Endpoint
from fedbbpt.ptm.models.openai.filled_template import FilledTemplate, TemplateFiller
from fedbbpt.ptm.models.openai.http import Server
from fedbbpt.ptm.models.openai.next_token import LabelWord
from fedbbpt.ptm.models.openai.self_test import self_test
from fedbbpt.ptm.models.template import Placeholder, check_pairs, parse
from fedbbpt.ptm.scheduling.planner import PlannedJob, pair_lengths
from fedbbpt.types import (
    Examples,
    MicroBatch,
    ModelCard,
    Perturbation,
    PromptKind,
    Prompts,
    TaskSpec,
    TextPrompts,
)
from fedbbpt.types.digests import digest

log = logging.getLogger(__name__)

SPELLING = "openai:MODEL@http://HOST:PORT/v1, or openai-chat: in place of openai:"
ENDPOINTS: Mapping[str, type[Endpoint[Any]]] = {"openai": Completions, "openai-chat": Chat}
"""The kind of requests, by the prefix of the model's name."""
KEY_VARIABLE, URL_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
"""The environment variables with the API key, and with the server that it is for."""
DEFAULT_URL = "https://api.openai.com/v1"
"""The server that the API key of the environment is for, unless the environment names another."""
CONCURRENT_REQUESTS = 8
"""Default number of requests at a time."""
MAX_TOKENS = 2048
"""Longest text, if the server does not state it; the server refuses a text that is too long for it."""
BYTES_PER_TOKEN = 3
"""Estimate for servers without a tokenizer. English has four or five, many other languages two or three."""
AZURE = ".azure.com"
MAX_LABELS = 128
"""Most ids that vLLM accepts as logprob_token_ids."""

_VERSION = 2
"""Version of the requests in this module; a part of the revision."""
_REVISION_FIELDS = ("id", "root", "parent", "owned_by", "max_model_len", "meta")
"""Properties of a listed model that make up the revision. `created` is not one: most servers state the current time."""


def connect(
    model: str, key: str = "", *, threads: int = 0, pause: Callable[[float], None] = time.sleep
) -> "OpenAICompatible":
    """Connects to a server and tests it.

    Args:
        model: A model in the form SPELLING.
        key: The API key; empty: that of the environment, if there is one and it is for this server.
        threads: Requests at a time; 0: CONCURRENT_REQUESTS.
        pause: Waits for a number of seconds before a retry.

    Raises:
        InvalidInput: `model` has another form, or the server does not have the model.
        FedbbptError: The server does not answer, or does not pass the self-test.
    """
    found = re.fullmatch(r"(openai|openai-chat):(.+?)@(https?://.+)", model)
    if found is None:
        raise InvalidInput(
            f"{model.partition('//')[0]!r} does not name a model of a server", where="model", fix=SPELLING
        )
    threads = threads or CONCURRENT_REQUESTS
    server = Server(found[3], key or _key_for(found[3]), connections=threads, pause=pause)
    try:
        return OpenAICompatible(server, found[2], ENDPOINTS[found[1]], threads=threads)
    except BaseException:
        server.close()
        raise


def _key_for(url: str) -> str:
    """Returns the API key of the environment if it is for the server at `url`, otherwise "".

    A model's name may come from a file of somebody else, and must not decide who gets the key.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    meant = os.environ.get(URL_VARIABLE, "").strip() or DEFAULT_URL
    if not key or _origin(url) == _origin(meant):
        return key
    log.warning(
        "%s is for %s and not sent to %s; %s says which server gets it",
        KEY_VARIABLE,
        *map(_host, (meant, url)),
        URL_VARIABLE,
    )
    return ""


def _origin(url: str) -> tuple[str, str, int | None]:
    """Returns scheme, host and port: a key is for one server, and not for another port of its host."""
    found = urlsplit(url)
    try:
        port = found.port
    except ValueError:
        port = None  # `Server` says what is wrong with it
    return found.scheme, found.hostname or "", port or {"http": 80, "https": 443}.get(found.scheme)


def _host(url: str) -> str:
    return _origin(url)[1]


class OpenAICompatible:
    """Implements interfaces.Backend; `threads` is the number of requests at a time."""

    family = "openai-compatible"
    hidden_size = 0

    def __init__(
        self,
        server: Server,
        model: str,
        endpoint: type[Endpoint[Any]] = Completions,
        *,
        threads: int = CONCURRENT_REQUESTS,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Tests the server.

        Args:
            server: The server.
            model: The model's name there.
            endpoint: The kind of requests.
            threads: Requests at a time.
            max_tokens: The longest text, if the server does not state it.

        Raises:
            InvalidInput: The server does not have the model.
            FedbbptError: Other errors are those of `self_test`.
        """
        self.threads = threads
        self._server, self._lock, self._bounds = server, Lock(), 0
        listed = _find(server, model)
        self._endpoint = endpoint(server, model)
        self._form, noise = self_test(self._endpoint, _stated(listed, "n_vocab") or 0)
        self._label_words = lru_cache(maxsize=256)(self._find_label_words)
        longest = _stated(listed, "max_model_len") or _stated(listed, "n_ctx") or max_tokens
        self._card = ModelCard(
            model=model,
            revision=_revision(server, listed, self._endpoint),
            family=self.family,
            prompt_kinds=frozenset({PromptKind.TEXT}),
            injections=frozenset(),
            max_tokens=longest - endpoint.overhead,
            max_prompts=MAX_PROMPTS,
            max_examples=MAX_EXAMPLES,
            max_message_bytes=MAX_MESSAGE_BYTES,
            embedding_width=0,
            score_noise=noise,
        )

    def close(self) -> None:
        """Closes the connections to the server."""
        self._server.close()

    def describe(self) -> ModelCard:
        return self._card

    def check(self, task: TaskSpec) -> None:
        self._endpoint.check_template(parse(task))
        if self._form.requests_label_ids and len(task.classes) > MAX_LABELS:
            raise InvalidTask(f"{len(task.classes)} classes", where="classes", fix=f"at most {MAX_LABELS}")
        self._label_words(task)

    def columns(self, task: TaskSpec) -> tuple[tuple[str, ...], ...]:
        return tuple((label.text if label.id is None else str(label.id),) for label in self._label_words(task))

    def _find_label_words(self, task: TaskSpec) -> tuple[LabelWord, ...]:
        """Returns the label words as they are tokenised after the end of the template."""
        with _unavailable_if_server_fails():
            return self._endpoint.label_words(parse(task), task.classes)

    def prepare(
        self, task: TaskSpec, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
    ) -> Sequence[FilledTemplate]:
        if perturbation is not None:
            what = "perturbation needs the model's vocabulary, which another server does not give"
            raise InvalidExamples(what, where="perturbation", fix="no perturbation")
        check_pairs(task, examples)
        filler = TemplateFiller(parse(task), partial(self._count, special=True))
        room = self._card.max_tokens - prompt_tokens
        indices = range(len(examples))
        pairs = examples.pairs or [""] * len(examples)
        with ThreadPoolExecutor(self.threads) as pool:
            return list(pool.map(lambda i: filler.fill(examples.texts[i], pairs[i], room, i), indices))

    def _count(self, text: str, *, special: bool = False) -> int:
        if self._endpoint.has_tokenizer:
            with _unavailable_if_server_fails():
                return len(self._endpoint.tokenise(text, special=special)) if text else 0
        return math.ceil(len(text.encode()) / BYTES_PER_TOKEN)

    def tokens(self, row: FilledTemplate) -> int:
        return row.tokens

    def identity(self, row: FilledTemplate) -> bytes:
        return digest(row.before, row.space, row.after)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FilledTemplate], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        """Puts pairs that begin alike into one request, as far as the template allows: servers cache prefixes."""
        if not isinstance(prompts, TextPrompts):
            raise prompts.unsupported()
        with ThreadPoolExecutor(self.threads) as pool:
            lengths = list(pool.map(self._count, prompts.texts))
        totals = pair_lengths(lengths, [row.tokens for row in rows], wanted, max_tokens=self._card.max_tokens)
        pieces = [piece.placeholder for piece in parse(task)]
        prompt_first = pieces.index(Placeholder.PROMPT) < pieces.index(Placeholder.TEXT)
        pairs = np.argwhere(wanted) if prompt_first else np.argwhere(wanted.T)[:, ::-1]
        size = min(self._form.texts_per_request, -(-len(pairs) // self.threads))  # so that no thread is idle
        parts = np.array_split(pairs, -(-len(pairs) // size)) if size else []
        labels = self._label_words(task)

        def run(batch: MicroBatch) -> npt.NDArray[np.float32]:
            named = zip(batch.prompts.tolist(), batch.rows.tolist(), strict=True)
            inputs = [self._endpoint.input(rows[b], prompts.texts[p]) for p, b in named]
            with _unavailable_if_server_fails():
                return self._scores(inputs, labels)

        batches = [MicroBatch(part[:, 0], part[:, 1], int(totals[part[:, 0], part[:, 1]].sum())) for part in parts]
        return PlannedJob(tuple(batches), run)

    def _scores(self, inputs: Sequence[Any], labels: Sequence[LabelWord]) -> npt.NDArray[np.float32]:
        """Returns the scores of the label words after each input, and which of them are bounds, `[N, 2, K]`."""
        form, scores = self._form, list[list[list[float]]]()
        for input, found in zip(inputs, self._endpoint.next_tokens(inputs, labels, form), strict=True):
            told = [found.score(label) for label in labels]
            if form.most_logprobs and any(score.is_bound for score in told):
                deepest = replace(form, top_logprobs=form.most_logprobs)
                (found,) = self._endpoint.next_tokens([input], labels, deepest)
                told = [found.score(label) for label in labels]
            scores.append([[score.value for score in told], [score.is_bound for score in told]])
        found_scores = np.array(scores, np.float32)
        self._count_bounds(int(found_scores[:, 1].sum()))
        return found_scores

    def _count_bounds(self, number: int) -> None:
        """Counts scores that are bounds, and warns of the first one, and whenever there are ten times as many."""
        with self._lock:
            before, self._bounds = self._bounds, self._bounds + number
        if number and (not before or len(str(before + number)) > len(str(before))):
            what = "%d scores are only bounds so far: the model's server did not tell the label words' probabilities"
            log.warning(what, before + number)


@contextmanager
def _unavailable_if_server_fails() -> Iterator[None]:
    """Reports a server that passed the self-test and fails now as unavailable: the caller did nothing wrong."""
    try:
        yield
    except (Unauthenticated, WrongService) as error:
        log.error("%s", error)
        raise PtmUnavailable(error.what, where=error.where, fix="see the service's log") from None


def _find(server: Server, model: str) -> Mapping[str, Any]:
    """Returns the server's entry for the model; an empty one from Azure, which lists models and not deployments."""
    if server.host.endswith(AZURE):
        return {}
    data = server.get(f"{server.url}/models").get("data")
    listed = [one for one in data if isinstance(one, dict)] if isinstance(data, list) else []
    found = next((one for one in listed if one.get("id") == model), None)
    if found is None:
        names = ", ".join(str(one.get("id")) for one in listed[:10])
        raise InvalidInput(f"the server has no model {model!r}", where="model", fix=f"one of {names}")
    return found


def _stated(listed: Mapping[str, Any], name: str) -> int | None:
    """Returns a number that the server states of a model; llama.cpp has it under `meta`."""
    meta = listed.get("meta")
    value = listed.get(name, meta.get(name) if isinstance(meta, dict) else None)
    return value if type(value) is int and value > 1 else None


def _revision(server: Server, listed: Mapping[str, Any], endpoint: Endpoint[Any]) -> str:
    """Digests the address and all that server and model state about themselves, since the weights are not visible."""
    stated = {name: listed[name] for name in _REVISION_FIELDS if name in listed}
    text = json.dumps([_VERSION, type(endpoint).__name__, server.url, stated, endpoint.identity], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
