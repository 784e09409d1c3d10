"""What is asked of a model's server before it answers anybody: whether its scores can be had, and be trusted.

It fails closed. The texts repeat " yes" and " no", so that every language model has these two among its likeliest next
tokens; where a server strips the white space from tokens' texts, they are not found, and it is not taken.
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
"""For how many of the likeliest tokens servers can be asked: most for any number, vLLM for 20, OpenAI for 5."""
MAX_NOISE = 0.25
"""By how much a log-probability may differ when it is asked for again, in nats: GPUs round by the size of the batch,
which makes some hundredths. More comes from more than one model, or from a temperature."""

_WHERE = "the self-test of the model's server"


def self_test(completions: Completions) -> tuple[RequestForm, float]:
    """The best form to ask, and the standard deviation of a score that is asked for again, alone and in company.

    Raises ScoreUnavailable, WrongService, and what asking raises.
    """
    labels = _labels(completions)
    form = _find_form(completions, labels)
    alone = _alone(completions, labels, form)
    try:
        company = _scores(completions, PROBES, labels, form)
        back = _scores(completions, PROBES[::-1], labels, form)[::-1]
        if _spread([alone, company, back]) <= MAX_NOISE:
            return form, _noise([alone, company, back])
    except (InvalidRequest, ScoreUnavailable, WrongService):
        pass  # It takes one text a request, and no more.
    repeats = [alone, *(_alone(completions, labels, form) for _ in range(2))]
    if _spread(repeats) > MAX_NOISE:
        what = f"the same text scores otherwise when it is asked again, by {_spread(repeats):.2g}"
        raise ScoreUnavailable(what, where=_WHERE, fix=f"a server that differs by {MAX_NOISE} at most")
    return replace(form, texts_per_request=1), _noise(repeats)


def _labels(completions: Completions) -> tuple[LabelWord, ...]:
    try:
        return completions.labels(WORDS[0], SPACE, WORDS)
    except InvalidTask as error:
        raise ScoreUnavailable(error.what, where=_WHERE, fix="another model") from None


def _request_forms(completions: Completions) -> Iterator[RequestForm]:
    """Best first. Some servers refuse what they do not know, others ignore it."""
    if completions.has_tokenizer:
        yield RequestForm(1, requests_label_ids=True, tokens_as_ids=True)
        yield from (RequestForm(depth, tokens_as_ids=True) for depth in DEPTHS)
    yield from (RequestForm(depth) for depth in DEPTHS)


def _find_form(completions: Completions, labels: Sequence[LabelWord]) -> RequestForm:
    """The first that gives a score to each label."""
    problem: FedbbptError | None = None
    for form in _request_forms(completions):
        try:
            (found,) = completions.next_tokens(PROBES[:1], labels, form)
        except InvalidRequest as error:
            problem = problem or error
            continue
        if found.written.startswith(PROBES[0]):
            raise WrongService("it echoes", where=_WHERE, fix="a server that answers with what follows a text")
        missing = [label.text for label in labels if found.score(label) is None]
        if not missing:
            return form
        what = f"{missing} are not among the {len(found.by_text)} tokens with a log-probability"
        problem = ScoreUnavailable(what, where=_WHERE, fix="a server that gives more of them, or logprob_token_ids")
    assert problem is not None, "there is a form that was tried"
    raise problem


def _scores(
    completions: Completions, texts: Sequence[str], labels: Sequence[LabelWord], form: RequestForm
) -> npt.NDArray[np.float64]:
    """`[N, 2]`"""
    scores = [[found.score(label) for label in labels] for found in completions.next_tokens(texts, labels, form)]
    if any(score is None for row in scores for score in row):
        raise ScoreUnavailable(f"{list(WORDS)} are not always found", where=_WHERE, fix="a server that gives more")
    return np.array(scores, np.float64)


def _alone(completions: Completions, labels: Sequence[LabelWord], form: RequestForm) -> npt.NDArray[np.float64]:
    return np.concatenate([_scores(completions, [text], labels, form) for text in PROBES])


def _spread(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.ptp(repeats, axis=0).max())


def _noise(repeats: Sequence[npt.NDArray[np.float64]]) -> float:
    return float(np.sqrt(np.var(repeats, axis=0, ddof=1).mean()))
