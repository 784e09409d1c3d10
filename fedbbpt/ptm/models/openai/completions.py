"""Reads the log-probabilities of the next token from a server that speaks OpenAI's protocol.

The call is POST /v1/completions with max_tokens = 1. Log-probabilities come in two forms. OpenAI, vLLM and SGLang key
them by the tokens' texts, `{" yes": -0.1}`, or vLLM on demand by ids, `{"token_id:17": -0.1}`; llama.cpp sends a list,
`[{"id": 17, "token": " yes", "logprob": -0.1}]`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.errors import InvalidRequest, InvalidTask, RevisionChanged, ScoreUnavailable, Unauthenticated, WrongService
from fedbbpt.ptm.models.openai.http import Server

ROUNDING = 0.01
"""Largest excess over 1 of the sum of probabilities."""

_TOKEN_ID = "token_id:"
_IMPOSSIBLE = -9999.0
"""Servers write this number, which is not a measurement, for a probability of 0."""
_WHERE = "the model's server"


@dataclass(frozen=True, slots=True)
class LabelWord:
    """A label word with the white space before it, and its token id if the server has a tokenizer."""

    text: str
    id: int | None = None


@dataclass(frozen=True, slots=True)
class RequestForm:
    """The form of completion requests that a server supports."""

    top_logprobs: int
    """Number of the likeliest tokens that are requested."""
    requests_label_ids: bool = False
    """Requests the log-probabilities of the label words themselves (vLLM)."""
    tokens_as_ids: bool = False
    """Requests token ids in place of tokens' texts (vLLM)."""
    texts_per_request: int = 16
    """Most texts in one request."""


@dataclass(frozen=True, slots=True)
class NextToken:
    """The log-probabilities of the token after a text, by token id and by token text."""

    by_id: Mapping[int, float]
    by_text: Mapping[str, float]
    written: str
    """The token that the server continues with, as text with its white space."""

    def score(self, label: LabelWord) -> float | None:
        """Returns the log-probability of a label word; None if the server does not give it."""
        if label.id is not None and self.by_id:
            found = self.by_id.get(label.id)
        else:
            found = self.by_text.get(label.text)
        return None if found is None or found <= _IMPOSSIBLE else found


class Completions:
    """One model of a server. Thread-safe."""

    def __init__(self, server: Server, model: str) -> None:
        """Finds out whether the server has a tokenizer."""
        self._server, self._model = server, model
        self.has_tokenizer = self._has_tokenizer()
        self.identity: tuple[str, str] | None = None
        """Names of model and server in the first answer. Later answers must have the same."""

    def _has_tokenizer(self) -> bool:
        try:
            return bool(self.tokenise("a"))
        except (InvalidRequest, Unauthenticated, WrongService):
            return False

    def tokenise(self, text: str, *, special: bool = False) -> Sequence[int]:
        """Returns the token ids of a text, by POST /tokenize of vLLM, SGLang and llama.cpp.

        `special`: with the model's own special tokens.
        """
        body = {"model": self._model, "prompt": text, "content": text}
        answer = self._server.post(f"{self._server.root}/tokenize", {**body, **_special(special)})
        tokens = answer.get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise WrongService("no list of token ids", where=_WHERE)
        return tokens

    def labels(self, stem: str, space: str, words: Sequence[str]) -> tuple[LabelWord, ...]:
        """Returns label words as they follow a text that ends in `stem`, after the white space `space`.

        Without a tokenizer there is no telling whether a word is one token; if it is not, it has no score later.

        Raises:
            InvalidTask: A word is not one token, or two words are the same token.
        """
        if not self.has_tokenizer:
            return tuple(LabelWord(space + word) for word in words)
        before = self.tokenise(stem)
        labels = []
        for word in words:
            tokens = self.tokenise(stem + space + word)
            if len(tokens) != len(before) + 1 or tokens[:-1] != before:
                what = f"label word {space + word!r} is not one token to the model after {stem!r}"
                raise InvalidTask(what, where="classes", fix="words of one token each")
            labels.append(LabelWord(space + word, tokens[-1]))
        if len({label.id for label in labels}) < len(labels):
            raise InvalidTask("two label words are the same token", where="classes", fix="different words")
        return tuple(labels)

    def next_tokens(self, texts: Sequence[str], labels: Sequence[LabelWord], form: RequestForm) -> list[NextToken]:
        """Returns the next token after each text, by one request.

        Raises:
            ScoreUnavailable: The answer has no log-probabilities.
            RevisionChanged: The answer is from another model or server than the first one.
            FedbbptError: Other errors are those of `Server.post`.
        """
        body: dict[str, Any] = {
            "model": self._model,
            "prompt": texts[0] if len(texts) == 1 else list(texts),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": form.top_logprobs,
        }
        if form.requests_label_ids:
            body["logprob_token_ids"] = [label.id for label in labels]
        if form.tokens_as_ids:
            body["return_tokens_as_token_ids"] = True
        answer = self._server.post(f"{self._server.url}/completions", body)
        self._check_identity(answer)
        choices = answer.get("choices")
        found = [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []
        numbered = {str(choice.get("index")): choice for choice in found}
        wanted = list(map(str, range(len(texts))))
        if len(found) != len(texts) or numbered.keys() != set(wanted):
            raise WrongService(f"choices {list(numbered)} for {len(texts)} texts", where=_WHERE, fix="one for each")
        return [_next_token(numbered[index]) for index in wanted]

    def _check_identity(self, answer: Mapping[str, Any]) -> None:
        identity = str(answer.get("model") or ""), str(answer.get("system_fingerprint") or "")
        self.identity = self.identity or identity
        if identity != self.identity:
            what = f"it was {' '.join(self.identity)} at the start, and is {' '.join(identity)}"
            raise RevisionChanged(what.strip(), where=_WHERE, fix="restart the PTM service")


def _special(wanted: bool) -> dict[str, bool]:
    """Returns the switch for special tokens as vLLM and SGLang name it, and as llama.cpp does."""
    return {"add_special_tokens": wanted, "add_special": wanted}


def _next_token(choice: Mapping[str, Any]) -> NextToken:
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        raise ScoreUnavailable("no log-probabilities", where=_WHERE, fix="a server that gives them in completions")
    listed = isinstance(found.get("content"), list)
    positions = found.get("content" if listed else "top_logprobs")
    if not isinstance(positions, list) or len(positions) != 1:
        count = len(positions) if isinstance(positions, list) else "no"
        fix = "a server that respects max_tokens and does not echo"
        raise WrongService(f"log-probabilities of {count} tokens for the next one", where=_WHERE, fix=fix)
    entries = list(_listed(positions[0]) if listed else _named(positions[0]))
    _check([value for _, _, value in entries])
    times = Counter(text for _, text, _ in entries)
    return NextToken(
        {id: value for id, _, value in entries if id is not None},
        # A text that several tokens share is ambiguous.
        {text: value for _, text, value in entries if times[text] == 1},
        str(choice.get("text")),
    )


def _named(position: Any) -> Iterator[tuple[int | None, str, Any]]:
    """Yields (id, text, log-probability) of tokens from `{text: log-probability}`."""
    for name, value in (position if isinstance(position, dict) else {}).items():
        digits = name.removeprefix(_TOKEN_ID)
        yield int(digits) if name.startswith(_TOKEN_ID) and digits.isdecimal() else None, name, value


def _listed(position: Any) -> Iterator[tuple[int | None, str, Any]]:
    """Yields (id, text, log-probability) of tokens from a list of objects."""
    tokens = position.get("top_logprobs") if isinstance(position, dict) else None
    for token in tokens if isinstance(tokens, list) else ():
        if not isinstance(token, dict):
            raise WrongService("log-probabilities in an unknown form", where=_WHERE)
        id = token.get("id")
        yield id if type(id) is int else None, str(token.get("token")), token.get("logprob")


def _check(values: Sequence[Any]) -> None:
    """Raises WrongService if the values are not logarithms of probabilities."""
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise WrongService("log-probabilities that are not finite numbers", where=_WHERE)
    total = math.fsum(math.exp(min(value, 1.0)) for value in values)
    if total > 1 + ROUNDING:
        raise WrongService(f"probabilities that sum to {total:.3g}", where=_WHERE, fix="at most 1")
