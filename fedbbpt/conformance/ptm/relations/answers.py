"""Relations between two ways to ask for the same scores: alone or with others, reordered, in two calls, inline.

The second way uses the twin of the task (inputs.Inputs.task), so that a service with a cache computes the scores again.
"""

import numpy as np

from fedbbpt.conformance.ptm.target import Refused
from fedbbpt.conformance.ptm.trial import Answer, Trial
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.types import Array, Output, Perturbation

SUM_TOLERANCE = 1e-4
"""How far the sum of probabilities may be from 1."""


def row_alone(trial: Trial) -> None:
    """Checks that each example gets the same scores alone and with the others."""
    trial.require_scores_of_rows()
    prompts = trial.prompts()
    whole = trial.ask(prompts)
    for at, row in enumerate(trial.rows):
        alone = trial.ask(prompts, [row], twin=True)
        trial.require_same(alone.answer[:, 0], whole.answer[:, at], f"row {row} alone and among {len(trial.rows)}")


def prompt_alone(trial: Trial) -> None:
    """Checks that each prompt gets the same answer alone and with the others."""
    prompts = trial.prompts()
    whole = trial.ask(prompts)
    for at in range(len(whole.answer)):
        alone = trial.ask(prompts.take([at]), twin=True)
        trial.require_same(alone.answer[0], whole.answer[at], f"prompt {at} alone and among {len(whole.answer)}")


def prompts_matter(trial: Trial) -> None:
    """Checks that different prompts do not all get the same answer."""
    answer = trial.ask(trial.prompts()).answer
    if len(answer) > 1 and (answer == answer[0]).all():
        raise Broken(f"{len(answer)} different prompts all have the same answers")


def examples_matter(trial: Trial) -> None:
    """Checks that different examples do not all get the same scores."""
    trial.require_scores_of_rows()
    scores = trial.ask(trial.prompts()).answer
    if scores.shape[1] > 1 and (scores == scores[:, :1]).all():
        raise Broken(f"{scores.shape[1]} different examples all have the same scores")


def permuted_prompts(trial: Trial) -> None:
    """Checks that reordered prompts get reordered answers."""
    prompts = trial.prompts()
    first = trial.ask(prompts).answer
    order = np.roll(np.arange(len(first)), 1)[::-1]
    other = trial.ask(prompts.take(order.tolist()), twin=True)
    trial.require_same(other.answer, first[order], "reordered prompts")


def permuted_rows(trial: Trial) -> None:
    """Checks that reordered examples get reordered scores, and the same losses."""
    prompts, rows = trial.prompts(), np.array(trial.rows)
    order = np.roll(np.arange(len(rows)), 1)[::-1]
    first = trial.ask(prompts)
    other = trial.ask(prompts, rows[order].tolist(), twin=True)
    trial.require_same(other.answer, _rows(first, order), "reordered examples")


def _rows(answer: Answer, order: Array) -> Array:
    """Returns the answer with its examples reordered; a loss does not depend on their order."""
    return answer.answer if answer.output is Output.LOSS_ONLY else answer.answer[:, order]


def split_prompts(trial: Trial) -> None:
    """Checks that prompts get the same answers in two calls as in one."""
    prompts = trial.prompts()
    whole = trial.ask(prompts).answer
    cuts = [prompts.take(part.tolist()) for part in np.array_split(np.arange(len(whole)), 2) if part.size]
    parts = [trial.ask(cut, twin=True).answer for cut in cuts]
    trial.require_same(np.concatenate(parts), whole, "prompts in two calls and in one")


def split_rows(trial: Trial) -> None:
    """Checks that examples get the same scores under two handles as under one; of losses, it checks the mean."""
    prompts, half = trial.prompts(), len(trial.rows) // 2
    if half < 1:
        raise Skipped("a handle holds only one example")
    whole = trial.ask(prompts, trial.rows[: 2 * half]).answer
    parts = [trial.ask(prompts, rows, twin=True).answer for rows in (trial.rows[:half], trial.rows[half : 2 * half])]
    losses = trial.card.output is Output.LOSS_ONLY
    joined = np.mean(parts, axis=0) if losses else np.concatenate(parts, axis=1)
    trial.require_same(joined, whole, "examples under two handles and under one")


def repeated_prompts(trial: Trial) -> None:
    """Checks that a prompt that occurs several times gets the same answer each time."""
    prompts = trial.prompts(2)
    once = trial.ask(prompts).answer
    which = [0, *range(len(once)), 0][: trial.card.max_prompts]
    trial.require_same(
        trial.ask(prompts.take(which), twin=True).answer, once[which], "a prompt that occurs three times"
    )


def repeated_rows(trial: Trial) -> None:
    """Checks that examples that occur twice get the same scores twice, and the same loss."""
    prompts, rows = trial.prompts(), trial.rows[: (len(trial.rows) + 1) // 2]
    once = trial.ask(prompts, rows)
    doubled = trial.ask(prompts, [*rows, *rows], twin=True)
    twice = _rows(once, np.tile(np.arange(len(rows)), 2))
    trial.require_same(doubled.answer, twice, "examples that occur twice")


def inline_is_handle(trial: Trial) -> None:
    """Checks that inline examples get the same answers as registered ones, and that their handle is named."""
    prompts = trial.prompts()
    inline = trial.ask(prompts, inline=True)
    trial.require_same(trial.ask(prompts, twin=True).answer, inline.answer, "inline and registered examples")
    if not inline.examples_id:
        raise Broken("the response to inline examples does not name their handle")
    again = trial.score(inline.examples_id, prompts, len(trial.rows))
    trial.require_same(again.answer, inline.answer, "inline examples and the handle that the response names")


def repeatable(trial: Trial) -> None:
    """Checks that the same request gets the same answer twice."""
    prompts = trial.prompts()
    first, again = trial.ask(prompts), trial.ask(prompts)
    trial.require_same(again.answer, first.answer, "the same request twice")


def same_revision(trial: Trial) -> None:
    """Checks that answers name the card's revision."""
    for inline in (True, False):
        answer = trial.ask(trial.prompts(2, seed=str(inline)), inline=inline)
        if answer.revision != trial.card.revision:
            raise Broken(f"the answer names the revision {answer.revision!r}, and the card {trial.card.revision!r}")


def noise_is_told(trial: Trial) -> None:
    """Checks that answers are bit-identical in any batch if the card's score_noise is 0."""
    prompts, rows = trial.prompts(), trial.rows
    whole = trial.ask(prompts)
    if trial.card.score_noise < 0 or not np.isfinite(trial.card.score_noise):
        raise Broken(f"score_noise is {trial.card.score_noise}")
    if trial.card.score_noise > 0:
        raise Skipped(f"the card says {trial.card.score_noise:.2g}, and the other relations allow for it")
    alone = np.concatenate([trial.ask(prompts.take([at]), rows, twin=True).answer for at in range(len(whole.answer))])
    if not np.array_equal(alone, whole.answer):
        apart = float(np.abs(alone.astype(np.float64) - whole.answer).max())
        raise Broken(f"prompts alone and with others differ by up to {apart:.2g}, but the card says score_noise = 0")


def bounds_are_counted(trial: Trial) -> None:
    """Checks that a call's usage counts the scores that the answer marks as bounds, also in a repeated call."""
    prompts = trial.prompts()
    for answer in (trial.ask(prompts), trial.ask(prompts)):
        marked, counted = 0 if answer.bounds is None else int(answer.bounds.sum()), answer.usage.bounded_scores
        most = answer.usage.queries * len(trial.me.inputs.task().classes)
        if not (marked == counted if answer.output.scores else marked <= counted <= most):
            raise Broken(f"the answer marks {marked} bounds, and the usage counts {counted} bounded scores")


def turned_classes(trial: Trial) -> None:
    """Checks that reordered classes get reordered scores."""
    prompts = trial.prompts()
    first, turned = trial.ask(prompts), trial.ask(prompts, turned=1)
    classes = len(trial.me.inputs.task().classes)
    if first.output is Output.LOSS_ONLY:
        expected = first.answer
    elif first.output is Output.LABEL_ARGMAX:
        expected = (first.answer - 1) % classes
    else:
        expected = np.roll(first.answer, -1, axis=2)
    trial.require_same(turned.answer, expected, "reordered classes")


def prompt_place_left_out(trial: Trial) -> None:
    """Checks that a leading {prompt} may be left out of the template."""
    if not trial.me.inputs.prompt_first:
        raise Skipped("the template does not begin with {prompt}")
    prompts = trial.prompts()
    trial.require_same(
        trial.ask(prompts, twin=True).answer, trial.ask(prompts).answer, "templates with and without a leading {prompt}"
    )


def probabilities_sum_to_one(trial: Trial) -> None:
    """Checks that the probabilities of each pair's classes sum to 1."""
    total = np.exp(trial.ask(trial.prompts()).answer.astype(np.float64)).sum(axis=2)
    if np.abs(total - 1).max() > SUM_TOLERANCE:
        raise Broken(f"probabilities sum to {total.min():.6g} to {total.max():.6g}")


def choices_are_classes(trial: Trial) -> None:
    """Checks that choices are indices of classes."""
    choices, classes = trial.ask(trial.prompts()).answer, len(trial.me.inputs.task().classes)
    if choices.min() < 0 or choices.max() >= classes:
        raise Broken(f"choices range from {choices.min()} to {choices.max()}, but there are {classes} classes")


def losses_are_positive(trial: Trial) -> None:
    """Checks that no loss is negative."""
    losses = trial.ask(trial.prompts()).answer
    if losses.min() < 0:
        raise Broken(f"a cross-entropy of {losses.min():.6g}")


def outputs_agree(trial: Trial) -> None:
    """Checks one tenant's losses, log-probabilities or choices against another tenant's scores."""
    other = trial.as_other()
    by_output = {each.card.output: each for each in (trial, other)}
    scored = by_output.get(Output.LABEL_LOGITS) or by_output.get(Output.LABEL_LOGPROBS)
    if scored is None or len(by_output) < 2:
        raise Skipped(f"both tenants get {trial.card.output}, or neither gets scores")
    (plain,) = (each for output, each in by_output.items() if each is not scored)
    rows, prompts = max(trial.rows, other.rows, key=len), trial.prompts()
    scores, found = scored.ask(prompts, rows).answer.astype(np.float64), plain.ask(prompts, rows).answer
    if scored.ask(prompts, rows).bounds is not None:
        raise Skipped("some scores are bounds, which count differently in losses")
    logs = scores - np.log(np.exp(scores - scores.max(axis=2, keepdims=True)).sum(axis=2, keepdims=True))
    logs -= scores.max(axis=2, keepdims=True)
    if plain.card.output is Output.LABEL_LOGPROBS:
        plain.require_same(found, logs, "log-probabilities and logits")
    elif plain.card.output is Output.LABEL_ARGMAX:
        plain.require_same(found, scores.argmax(axis=2), "choices and scores")
    else:
        classes = scores.shape[2]
        labels = np.array([row % classes for row in rows])
        plain.require_same(found, -logs[:, np.arange(len(rows)), labels].mean(axis=1), "losses and scores")


def perturbed(trial: Trial) -> None:
    """Checks that a perturbation with rate 0 changes nothing, and that a seed always gives the same one."""
    prompts = trial.prompts(2)
    plain = trial.ask(prompts)
    try:
        changed = [trial.ask(prompts, twin=twin, perturbation=Perturbation(0.8, 2**64 - 1)) for twin in (False, True)]
    except Refused as refused:
        if refused.reason == "InvalidExamples":
            raise Skipped(f"the service does not perturb texts: {refused.text}") from None
        raise
    still = trial.ask(prompts, twin=True, perturbation=Perturbation(0.0, 1))
    trial.require_same(still.answer, plain.answer, "a perturbation with rate 0 and none")
    trial.require_same(changed[1].answer, changed[0].answer, "the same perturbation twice")
    if plain.output is not Output.LABEL_ARGMAX and np.array_equal(changed[0].answer, plain.answer):
        raise Broken("a perturbation of four fifths of the tokens changes no score")
