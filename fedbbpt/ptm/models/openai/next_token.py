"""The log-probabilities of the next token as servers send them, and the scores of label words that follow from them.

Log-probabilities come in two forms. Completions of OpenAI, vLLM and SGLang key them by the tokens' texts,
`{" yes": -0.1}`, or vLLM on demand by ids, `{"token_id:17": -0.1}`; llama.cpp, and every server's chat completions,
send a list, `[{"token": " yes", "logprob": -0.1}]`, in which llama.cpp adds `"id": 17`.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbbpt.errors import ScoreUnavailable, WrongService

ROUNDING = 0.01
"""Largest excess over 1 of the sum of probabilities."""
REST_ROUNDING = 1e-3
"""How exactly the sum of the told probabilities is known: some servers round each log-probability."""
TOLERANCE = 0.25
"""A score counts as measured if what is not told could raise it by at most this much, in nats."""
WHERE = "the model's server"

_TOKEN_ID = "token_id:"
_IMPOSSIBLE = -9999.0
"""Servers write this number, which is not a measurement, for a probability of 0."""


@dataclass(frozen=True, slots=True)
class LabelWord:
    """A label word with the white space before it, and its token id if the server has a tokenizer."""

    text: str
    id: int | None = None
    other_spellings: tuple[str, ...] = ()
    """Tokens that count as the same word. Their probabilities are added."""


@dataclass(frozen=True, slots=True)
class Score:
    """The log-probability of a label word over the whole vocabulary."""

    value: float
    is_bound: bool
    """Whether `value` is only an upper bound, since the server did not tell the word's probability."""


@dataclass(frozen=True, slots=True)
class NextToken:
    """The log-probabilities of the token after a text, by token id and by token text."""

    by_id: Mapping[int, float]
    by_text: Mapping[str, float]
    """Tokens with the same text are added."""
    written: str
    """What the server continues with, as text with its white space."""
    least: float
    """No token that is not told is likelier than this."""
    rest: float
    """The probability of all tokens together that are not told, at most."""

    def score(self, label: LabelWord) -> Score:
        """Returns the score of a label word, or the bound that follows from the told tokens.

        A token that is not told is at most as likely as the least likely one that is, and all of them together have the
        probability that is left.
        """
        if label.id is not None and self.by_id:
            told = [self.by_id[label.id]] if label.id in self.by_id else []
            untold = 1 - len(told)
        else:
            spellings = (label.text, *label.other_spellings)
            told = [self.by_text[spelling] for spelling in spellings if spelling in self.by_text]
            untold = len(spellings) - len(told)
        known = math.fsum(map(math.exp, told))
        excess = min(untold * math.exp(self.least), self.rest)
        if not known or math.log1p(excess / known) > TOLERANCE:
            return Score(math.log(known + excess), is_bound=True)
        return Score(math.log(known), is_bound=False)


def next_token(choice: Mapping[str, Any], written: str, *, likeliest: bool) -> NextToken:
    """Reads a choice of an answer.

    Args:
        choice: An element of `choices`.
        written: The text that the server continues with.
        likeliest: Whether the told tokens are the likeliest ones, not ones that were requested by id.

    Raises:
        ScoreUnavailable: The choice has no log-probabilities.
        WrongService: It has those of several tokens, or they are not logarithms of probabilities.
    """
    found = choice.get("logprobs")
    if not isinstance(found, dict):
        raise ScoreUnavailable("no log-probabilities", where=WHERE, fix="a server and a model that give them")
    listed = isinstance(found.get("content"), list)
    positions = found.get("content" if listed else "top_logprobs")
    if not isinstance(positions, list) or len(positions) != 1:
        count = len(positions) if isinstance(positions, list) else "no"
        fix = "a server that respects max_tokens and does not echo"
        raise WrongService(f"log-probabilities of {count} tokens for the next one", where=WHERE, fix=fix)
    entries = list(_listed(positions[0]) if listed else _named(positions[0]))
    total = _total([value for _, _, value in entries])
    entries = [entry for entry in entries if entry[2] > _IMPOSSIBLE]
    by_text: dict[str, float] = defaultdict(float)
    for _, text, value in entries:
        by_text[text] += math.exp(value)
    return NextToken(
        {id: value for id, _, value in entries if id is not None},
        {text: math.log(probability) for text, probability in by_text.items() if probability},
        written,
        min((value for _, _, value in entries), default=0.0) if likeliest else 0.0,
        max(1 - total, REST_ROUNDING),
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
            raise WrongService("log-probabilities in an unknown form", where=WHERE)
        id = token.get("id")
        yield id if type(id) is int else None, str(token.get("token")), token.get("logprob")


def _total(values: Sequence[Any]) -> float:
    """Returns the sum of the probabilities. Raises WrongService if the values are not logarithms of probabilities."""
    if not all(type(value) in (int, float) and math.isfinite(value) for value in values):
        raise WrongService("log-probabilities that are not finite numbers", where=WHERE)
    total = math.fsum(math.exp(min(value, 1.0)) for value in values)
    if total > 1 + ROUNDING:
        raise WrongService(f"probabilities that sum to {total:.3g}", where=WHERE, fix="at most 1")
    return total
