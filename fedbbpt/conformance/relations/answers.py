"""Two ways to ask for the same scores: alone and in company, in another order, cut in two, inline.

The second way asks the twin of the task (inputs.Inputs.task): a service that remembers scores computes them again.
"""

import numpy as np

from fedbbpt.conformance.inputs import take
from fedbbpt.conformance.target import Refused
from fedbbpt.conformance.trial import Answer, Broken, Skipped, Trial
from fedbbpt.types import Array, Output, Perturbation

SUM_TOLERANCE = 1e-4


def row_alone(trial: Trial) -> None:
    trial.need_rows()
    prompts = trial.prompts()
    whole = trial.ask(prompts)
    for at, row in enumerate(trial.rows):
        alone = trial.ask(prompts, [row], twin=True)
        trial.same(alone.answer[:, 0], whole.answer[:, at], f"row {row} alone and among {len(trial.rows)}")


def prompt_alone(trial: Trial) -> None:
    prompts = trial.prompts()
    whole = trial.ask(prompts)
    for at in range(len(whole.answer)):
        alone = trial.ask(take(prompts, [at]), twin=True)
        trial.same(alone.answer[0], whole.answer[at], f"prompt {at} alone and among {len(whole.answer)}")


def prompts_matter(trial: Trial) -> None:
    answer = trial.ask(trial.prompts()).answer
    if len(answer) > 1 and (answer == answer[0]).all():
        raise Broken(f"{len(answer)} different prompts have all the same answers")


def examples_matter(trial: Trial) -> None:
    trial.need_rows()
    scores = trial.ask(trial.prompts()).answer
    if scores.shape[1] > 1 and (scores == scores[:, :1]).all():
        raise Broken(f"{scores.shape[1]} different examples have all the same scores")


def permuted_prompts(trial: Trial) -> None:
    prompts = trial.prompts()
    first = trial.ask(prompts).answer
    order = np.roll(np.arange(len(first)), 1)[::-1]
    other = trial.ask(take(prompts, order.tolist()), twin=True)
    trial.same(other.answer, first[order], "prompts in another order")


def permuted_rows(trial: Trial) -> None:
    prompts, rows = trial.prompts(), np.array(trial.rows)
    order = np.roll(np.arange(len(rows)), 1)[::-1]
    first = trial.ask(prompts)
    other = trial.ask(prompts, rows[order].tolist(), twin=True)
    trial.same(other.answer, _rows(first, order), "examples in another order")


def _rows(answer: Answer, order: Array) -> Array:
    """A loss is of all of them, in any order."""
    return answer.answer if answer.output is Output.LOSS_ONLY else answer.answer[:, order]


def split_prompts(trial: Trial) -> None:
    prompts = trial.prompts()
    whole = trial.ask(prompts).answer
    cuts = [take(prompts, part.tolist()) for part in np.array_split(np.arange(len(whole)), 2) if part.size]
    parts = [trial.ask(cut, twin=True).answer for cut in cuts]
    trial.same(np.concatenate(parts), whole, "prompts in two calls and in one")


def split_rows(trial: Trial) -> None:
    """Of losses: those of two halves of one size have the whole's as their mean."""
    prompts, half = trial.prompts(), len(trial.rows) // 2
    if half < 1:
        raise Skipped("a handle holds one example")
    whole = trial.ask(prompts, trial.rows[: 2 * half]).answer
    parts = [trial.ask(prompts, rows, twin=True).answer for rows in (trial.rows[:half], trial.rows[half : 2 * half])]
    losses = trial.card.output is Output.LOSS_ONLY
    joined = np.mean(parts, axis=0) if losses else np.concatenate(parts, axis=1)
    trial.same(joined, whole, "examples by two handles and by one")


def repeated_prompts(trial: Trial) -> None:
    prompts = trial.prompts(2)
    once = trial.ask(prompts).answer
    which = [0, *range(len(once)), 0][: trial.card.max_prompts]
    trial.same(trial.ask(take(prompts, which), twin=True).answer, once[which], "a prompt that stands there three times")


def repeated_rows(trial: Trial) -> None:
    prompts, rows = trial.prompts(), trial.rows[: (len(trial.rows) + 1) // 2]
    once = trial.ask(prompts, rows)
    doubled = trial.ask(prompts, [*rows, *rows], twin=True)
    twice = _rows(once, np.tile(np.arange(len(rows)), 2))
    trial.same(doubled.answer, twice, "examples that stand there twice")


def inline_is_handle(trial: Trial) -> None:
    prompts = trial.prompts()
    inline = trial.ask(prompts, inline=True)
    trial.same(trial.ask(prompts, twin=True).answer, inline.answer, "inline and by a handle")
    if not inline.examples_id:
        raise Broken("the answer to inline examples names no handle of theirs")
    again = trial.score(inline.examples_id, prompts, len(trial.rows))
    trial.same(again.answer, inline.answer, "inline and by the handle that its answer named")


def repeatable(trial: Trial) -> None:
    prompts = trial.prompts()
    first, again = trial.ask(prompts), trial.ask(prompts)
    trial.same(again.answer, first.answer, "the same request twice")


def same_revision(trial: Trial) -> None:
    for inline in (True, False):
        answer = trial.ask(trial.prompts(2, seed=str(inline)), inline=inline)
        if answer.revision != trial.card.revision:
            raise Broken(f"an answer of revision {answer.revision!r}, and the card says {trial.card.revision!r}")


def noise_is_told(trial: Trial) -> None:
    """Where the card says 0, the bits are the same in any company."""
    prompts, rows = trial.prompts(), trial.rows
    whole = trial.ask(prompts)
    if trial.card.score_noise < 0 or not np.isfinite(trial.card.score_noise):
        raise Broken(f"score_noise is {trial.card.score_noise}")
    if trial.card.score_noise > 0:
        raise Skipped(f"the card says {trial.card.score_noise:.2g}, and the relations reckon with it")
    alone = np.concatenate([trial.ask(take(prompts, [at]), rows, twin=True).answer for at in range(len(whole.answer))])
    if not np.array_equal(alone, whole.answer):
        apart = float(np.abs(alone.astype(np.float64) - whole.answer).max())
        raise Broken(f"prompts alone and in company differ by up to {apart:.2g}, and the card says score_noise = 0")


def turned_classes(trial: Trial) -> None:
    prompts = trial.prompts()
    first, turned = trial.ask(prompts), trial.ask(prompts, turned=1)
    classes = len(trial.me.inputs.task().classes)
    if first.output is Output.LOSS_ONLY:
        expected = first.answer
    elif first.output is Output.LABEL_ARGMAX:
        expected = (first.answer - 1) % classes
    else:
        expected = np.roll(first.answer, -1, axis=2)
    trial.same(turned.answer, expected, "classes in another order")


def prompt_place_left_out(trial: Trial) -> None:
    if not trial.me.inputs.prompt_first:
        raise Skipped("the template has its {prompt} elsewhere")
    prompts = trial.prompts()
    trial.same(trial.ask(prompts, twin=True).answer, trial.ask(prompts).answer, "{prompt} in front and left out")


def probabilities_sum_to_one(trial: Trial) -> None:
    total = np.exp(trial.ask(trial.prompts()).answer.astype(np.float64)).sum(axis=2)
    if np.abs(total - 1).max() > SUM_TOLERANCE:
        raise Broken(f"they sum to {total.min():.6g} to {total.max():.6g}")


def choices_are_classes(trial: Trial) -> None:
    choices, classes = trial.ask(trial.prompts()).answer, len(trial.me.inputs.task().classes)
    if choices.min() < 0 or choices.max() >= classes:
        raise Broken(f"choices from {choices.min()} to {choices.max()} of {classes} classes")


def losses_are_positive(trial: Trial) -> None:
    losses = trial.ask(trial.prompts()).answer
    if losses.min() < 0:
        raise Broken(f"a cross-entropy of {losses.min():.6g}")


def outputs_agree(trial: Trial) -> None:
    """Losses are the cross-entropies of the scores, choices the classes with the highest, of another tenant's."""
    other = trial.as_other()
    by_output = {each.card.output: each for each in (trial, other)}
    scored = by_output.get(Output.LABEL_LOGITS) or by_output.get(Output.LABEL_LOGPROBS)
    if scored is None or len(by_output) < 2:
        raise Skipped(f"both tenants get {trial.card.output}, or none gets scores")
    (plain,) = (each for output, each in by_output.items() if each is not scored)
    rows, prompts = max(trial.rows, other.rows, key=len), trial.prompts()
    scores, found = scored.ask(prompts, rows).answer.astype(np.float64), plain.ask(prompts, rows).answer
    logs = scores - np.log(np.exp(scores - scores.max(axis=2, keepdims=True)).sum(axis=2, keepdims=True))
    logs -= scores.max(axis=2, keepdims=True)
    if plain.card.output is Output.LABEL_LOGPROBS:
        plain.same(found, logs, "log-probabilities and logits")
    elif plain.card.output is Output.LABEL_ARGMAX:
        plain.same(found, scores.argmax(axis=2), "choices and scores")
    else:
        classes = scores.shape[2]
        labels = np.array([row % classes for row in rows])
        plain.same(found, -logs[:, np.arange(len(rows)), labels].mean(axis=1), "losses and scores")


def perturbed(trial: Trial) -> None:
    """A rate of 0 changes nothing; the same rate and seed change the same."""
    prompts = trial.prompts(2)
    plain = trial.ask(prompts)
    try:
        changed = [trial.ask(prompts, twin=twin, perturbation=Perturbation(0.8, 2**64 - 1)) for twin in (False, True)]
    except Refused as refused:
        if refused.reason == "InvalidExamples":
            raise Skipped(f"the service perturbs no texts: {refused.text}") from None
        raise
    still = trial.ask(prompts, twin=True, perturbation=Perturbation(0.0, 1))
    trial.same(still.answer, plain.answer, "a perturbation of rate 0 and none")
    trial.same(changed[1].answer, changed[0].answer, "the same perturbation twice")
    if plain.output is not Output.LABEL_ARGMAX and np.array_equal(changed[0].answer, plain.answer):
        raise Broken("four fifths of the tokens gave way to others, and no score moved")
