"""Tests at start-up whether a model's server gives the log-probabilities of label words, and the same ones each time.

A server that does not pass is not used. The test's texts repeat " yes" and " no", so that every language model has
these two among its likeliest next tokens. If a server strips the white space from tokens' texts, they are not found,
and the test fails.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import FedbbptError, InvalidRequest, InvalidTask, ScoreUnavailable, WrongService
from fedbbpt.ptm.models.openai.completions import Completions, LabelWord, RequestForm

PROBES = (
    "Answer: yes no no yes no yes yes no yes",
    "It is one or the other, and it goes on like this: no yes yes no no yes no yes yes no no",
    "no no yes no yes yes no yes no",
    "The answers to all of these questions are: yes yes no yes no no yes no yes no",
)
SPACE, WORDS = " ", ("yes", "no")
DEPTHS = (1000, 100, 20, 5)
"""Numbers of the likeliest tokens that are requested: most servers give any number, vLLM 20, OpenAI 5."""
MAX_NOISE = 0.25
"""Largest difference of a log-probability between requests, in nats. GPUs round differently for different batch sizes,
which makes some hundredths; a larger difference comes from several models at one address, or from a temperature."""

_WHERE = "the self-test of the model's server"


def self_test(completions: Completions) -> tuple[RequestForm, float]:
    """Returns the best form of request, and the standard deviation of a score between requests of different sizes.

    Raises:
        ScoreUnavailable: The server does not give the scores of label words, or not the same ones each time.
        WrongService: The server does not answer as OpenAI's protocol demands.
        FedbbptError: Other errors are those of `Completions.next_tokens`.
    """
    labels = _labels(completions)
    form = _find_form(completions, labels)
    alone = _alone(completions, labels, form)
    try:
        batched = _scores(completions, PROBES, labels, form)
        reversed_order = _scores(completions, PROBES[::-1], labels, form)[::-1]
        if _spread([alone, batched, reversed_order]) <= MAX_NOISE:
            return form, _noise([alone, batched, reversed_order])
    except (InvalidRequest, ScoreUnavailable, WrongService):
        pass  # The server takes only one text in a request.
    repeats = [alone, *(_alone(completions, labels, form) for _ in range(2))]
    if _spread(repeats) > MAX_NOISE:
        what = f"the same text scores differently in each request, by up to {_spread(repeats):.2g} nats"
        raise ScoreUnavailable(what, where=_WHERE, fix=f"a server whose scores differ by at most {MAX_NOISE}")
    return replace(form, texts_per_request=1), _noise(repeats)


def _labels(completions: Completions) -> tuple[LabelWord, ...]:
    try:
        return completions.labels(WORDS[0], SPACE, WORDS)
    except InvalidTask as error:
        raise ScoreUnavailable(error.what, where=_WHERE, fix="another model") from None


def _request_forms(completions: Completions) -> Iterator[RequestForm]:
    """Yields forms of request, the best first. Servers refuse arguments that they do not know, or ignore them."""
    if completions.has_tokenizer:
        yield RequestForm(1, requests_label_ids=True, tokens_as_ids=True)
        yield from (RequestForm(depth, tokens_as_ids=True) for depth in DEPTHS)
    yield from (RequestForm(depth) for depth in DEPTHS)


def _find_form(completions: Completions, labels: Sequence[LabelWord]) -> RequestForm:
    """Returns the first form with which each label word has a score."""
    problem: FedbbptError | None = None
    for form in _request_forms(completions):
        try:
            (found,) = completions.next_tokens(PROBES[:1], labels, form)
        except InvalidRequest as error:
            problem = problem or error
            continue
        if found.written.startswith(PROBES[0]):
            raise WrongService(
                "the server echoes the text", where=_WHERE, fix="a server that answers with the next token only"
            )
        missing = [label.text for label in labels if found.score(label) is None]
        if not missing:
            return form
        what = f"{missing} are not among the {len(found.by_text)} tokens with a log-probability"
        problem = ScoreUnavailable(
            what, where=_WHERE, fix="a server that gives more log-probabilities, or supports logprob_token_ids"
        )
    assert problem is not None, "at least one form was tried"
    raise problem


def _scores(
    completions: Completions, texts: Sequence[str], labels: Sequence[LabelWord], form: RequestForm
) -> npt.NDArray[np.float64]:
    """Returns the scores of the label words after each text, `[N, 2]`."""
    scores = [[found.score(label) for label in labels] for found in completions.next_tokens(texts, labels, form)]
    if any(score is None for row in scores for score in row):
        raise ScoreUnavailable(
            f"{list(WORDS)} do not always have a log-probability", where=_WHERE, fix="a server that gives more of them"
        )
    return np.array(scores, np.float64)


def _alone(completions: Completions, labels: Sequence[LabelWord], form: RequestForm) -> npt.NDArray[np.float64]:
    return np.concatenate([_scores(completions, [text], labels, form) for text in PROBES])


def _spread(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.ptp(repeats, axis=0).max())


def _noise(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.var(repeats, axis=0, ddof=1).mean()))
