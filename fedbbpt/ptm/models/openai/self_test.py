"""Tests at start-up whether a model's server gives the log-probabilities of label words, and the same ones each time.

A server that does not pass is not used. The test's inputs repeat "yes" and "no", so that every language model has these
two among its likeliest next tokens. If a server strips the white space from tokens' texts, they are not found, and the
test fails.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import FedbbptError, InvalidRequest, InvalidTask, ScoreUnavailable, WrongService
from fedbbpt.limits import MAX_ANSWER_BYTES
from fedbbpt.ptm.models.openai.endpoint import Endpoint, RequestForm
from fedbbpt.ptm.models.openai.next_token import LabelWord
from fedbbpt.ptm.models.template import Piece, Placeholder

WORDS = ("yes", "no")
DEPTHS = (1000, 100, 20, 5)
"""Numbers of the likeliest tokens that are requested: most servers give any number, vLLM and chats 20, OpenAI 5."""
MOST_LOGPROBS = MAX_ANSWER_BYTES // 128
"""Most tokens that are requested; each takes about 100 bytes of an answer."""
DEEPER = 10_000
"""Tokens that are requested for a missing label word if the server does not state the size of its vocabulary. No known
language model has so small a vocabulary that a server could fail at this."""
MAX_NOISE = 0.25
"""Largest difference of a log-probability between requests, in nats. GPUs round differently for different batch sizes,
which makes some hundredths; a larger difference comes from several models at one address, or from a temperature."""
MIN_TOLD_SHARE = 0.5
"""Smallest share of the test's scores that must be measured, not bounds."""

_WHERE = "the self-test of the model's server"


def self_test(endpoint: Endpoint[Any], vocabulary: int = 0) -> tuple[RequestForm, float]:
    """Returns the best form of request, and the standard deviation of a score between requests of different sizes.

    Args:
        endpoint: The model to test.
        vocabulary: Number of tokens in the model's vocabulary; 0 if the server does not state it.

    Raises:
        ScoreUnavailable: The server does not give the scores of label words, or not the same ones each time.
        WrongService: The server does not answer as OpenAI's protocol demands.
        FedbbptError: Other errors are those of `Endpoint.next_tokens`.
    """
    labels = _labels(endpoint)
    form = _find_form(endpoint, labels)
    form = replace(form, texts_per_request=endpoint.most_texts)
    if form.top_logprobs == DEPTHS[0] and not form.requests_label_ids:
        form = _with_deepest(endpoint, labels, form, min(vocabulary or DEEPER, MOST_LOGPROBS))
    alone = _alone(endpoint, labels, form)
    if form.texts_per_request > 1:
        try:
            batched = _scores(endpoint, endpoint.probes, labels, form)
            reversed_order = _scores(endpoint, endpoint.probes[::-1], labels, form)[::-1]
            if _spread([alone, batched, reversed_order]) <= MAX_NOISE:
                return form, _noise([alone, batched, reversed_order])
        except (InvalidRequest, ScoreUnavailable, WrongService):
            pass  # The server takes only one text in a request.
    repeats = [alone, *(_alone(endpoint, labels, form) for _ in range(2))]
    if _spread(repeats) > MAX_NOISE:
        what = f"the same text scores differently in each request, by up to {_spread(repeats):.2g} nats"
        raise ScoreUnavailable(what, where=_WHERE, fix=f"a server whose scores differ by at most {MAX_NOISE}")
    return replace(form, texts_per_request=1), _noise(repeats)


def _labels(endpoint: Endpoint[Any]) -> tuple[LabelWord, ...]:
    try:
        return endpoint.label_words((Piece(WORDS[0], None), Piece(endpoint.space, Placeholder.MASK)), WORDS)
    except InvalidTask as error:
        raise ScoreUnavailable(error.what, where=_WHERE, fix="another model") from None


def _request_forms(endpoint: Endpoint[Any]) -> Iterator[RequestForm]:
    """Yields forms of request, the best first. Servers refuse arguments that they do not know, or ignore them."""
    if endpoint.has_tokenizer and endpoint.most_texts > 1:
        yield RequestForm(1, requests_label_ids=True, tokens_as_ids=True)
        yield from (RequestForm(depth, tokens_as_ids=True) for depth in DEPTHS)
    yield from (RequestForm(depth) for depth in DEPTHS)


def _find_form(endpoint: Endpoint[Any], labels: Sequence[LabelWord]) -> RequestForm:
    """Returns the first form with which each label word has a score."""
    problem: FedbbptError | None = None
    for form in _request_forms(endpoint):
        try:
            (found,) = endpoint.next_tokens(endpoint.probes[:1], labels, form)
        except InvalidRequest as error:
            problem = problem or error
            continue
        if endpoint.echoes(found, endpoint.probes[0]):
            raise WrongService(
                "the server echoes the text", where=_WHERE, fix="a server that answers with the next token only"
            )
        missing = [label.text for label in labels if found.score(label).is_bound]
        if not missing:
            return form
        what = f"{missing} are not among the {len(found.by_text)} tokens with a log-probability"
        problem = ScoreUnavailable(
            what, where=_WHERE, fix="a server that gives more log-probabilities, or supports logprob_token_ids"
        )
    assert problem is not None, "at least one form was tried"
    raise problem


def _with_deepest(endpoint: Endpoint[Any], labels: Sequence[LabelWord], form: RequestForm, most: int) -> RequestForm:
    """Returns the form with the number of tokens that the server gives for a label word that is not among the first."""
    try:
        (first,) = endpoint.next_tokens(endpoint.probes[:1], labels, form)
        (deep,) = endpoint.next_tokens(endpoint.probes[:1], labels, replace(form, top_logprobs=most))
    except FedbbptError:
        return form
    gives_more = len(deep.by_text) > len(first.by_text)
    return replace(form, most_logprobs=most) if gives_more else form


def _scores(
    endpoint: Endpoint[Any], inputs: Sequence[Any], labels: Sequence[LabelWord], form: RequestForm
) -> npt.NDArray[np.float64]:
    """Returns the scores of the label words after each input, `[N, 2]`; those that are bounds are NaN."""
    found = [[one.score(label) for label in labels] for one in endpoint.next_tokens(inputs, labels, form)]
    return np.array([[np.nan if score.is_bound else score.value for score in row] for row in found], np.float64)


def _alone(endpoint: Endpoint[Any], labels: Sequence[LabelWord], form: RequestForm) -> npt.NDArray[np.float64]:
    scores = np.concatenate([_scores(endpoint, [probe], labels, form) for probe in endpoint.probes])
    if np.isfinite(scores).mean() < MIN_TOLD_SHARE:
        raise ScoreUnavailable(
            f"{list(WORDS)} rarely have a log-probability", where=_WHERE, fix="a server that gives more of them"
        )
    return scores


def _told(repeats: Sequence[npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
    """Returns the scores `[R, n]` that were measured in all repeats, of which there is at least one."""
    stacked = np.stack([repeat.reshape(-1) for repeat in repeats])
    return stacked[:, np.isfinite(stacked).all(axis=0)]


def _spread(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    told = _told(repeats)
    return float(np.ptp(told, axis=0).max()) if told.size else np.inf


def _noise(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.var(_told(repeats), axis=0, ddof=1).mean()))
