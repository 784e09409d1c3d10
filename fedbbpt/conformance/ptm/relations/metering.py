"""Relations about usage, costs, budgets, handles and idempotency keys."""

import secrets
from typing import Any

import numpy as np

from fedbbpt.conformance.ptm.target import Refused
from fedbbpt.conformance.ptm.trial import Answer, Trial
from fedbbpt.conformance.results import Broken
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Usage
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.messages.usage_messages import usage

COUNTED = ("queries", "tokens", "cached_queries", "cost_micros", "bounded_scores")
SECONDS = ("compute_seconds", "queue_seconds")
SECONDS_TOLERANCE = 1e-3
MICROS_TOLERANCE = 1
"""Allowed difference for one call, since prices for a thousand tokens are rounded."""


def usage_adds_up(trial: Trial) -> None:
    """Checks that the usage of new, cached and inline calls adds up to the rise of GetUsage."""
    before = trial.usage()
    prompts = trial.prompts()
    asked = [trial.ask(prompts), trial.ask(prompts), trial.ask(prompts.take([0]), inline=True)]
    after = trial.usage()
    for answer, number in zip(asked, (len(asked[0].answer), len(asked[0].answer), 1), strict=True):
        _check(answer.usage, number * len(trial.rows))
    risen = _difference(after.usage, before.usage)
    total = sum((answer.usage for answer in asked), Usage())
    for name in COUNTED:
        if getattr(risen, name) != getattr(total, name):
            raise Broken(
                f"calls add up to {name} = {getattr(total, name)}, but GetUsage rose by {getattr(risen, name)}"
            )
    for name in SECONDS:
        if abs(getattr(risen, name) - getattr(total, name)) > SECONDS_TOLERANCE:
            raise Broken(
                f"calls add up to {getattr(total, name):.6f} {name}, but GetUsage rose by {getattr(risen, name):.6f}"
            )


def _check(used: Usage, queries: int) -> None:
    if used.queries != queries:
        raise Broken(f"a call of {queries} pairs reports a usage of {used.queries} queries")
    if not 0 <= used.cached_queries <= used.queries:
        raise Broken(f"a call reports {used.cached_queries} cached queries of {used.queries}")
    if min(used.tokens, used.compute_seconds, used.queue_seconds, used.cost_micros) < 0:
        raise Broken(f"a negative usage: {used}")


def _difference(after: pb.Usage, before: pb.Usage) -> Usage:
    late, early = usage(after), usage(before)
    return Usage(*(getattr(late, name) - getattr(early, name) for name in Usage.__dataclass_fields__))


def tasks_have_their_own_usage(trial: Trial) -> None:
    """Checks that GetUsage reports the queries of each task."""

    def of_tasks() -> dict[str, int]:
        return {each.task_id: each.usage.queries for each in trial.usage().tasks}

    before = of_tasks()
    answers = {}
    for twin in (False, True):
        task_id = trial.call(
            "RegisterTask", ptm_messages.register_task_request(trial.me.inputs.task(twin=twin))
        ).task_id
        answers[task_id] = trial.ask(trial.prompts(2), twin=twin).usage.queries
    after = of_tasks()
    for task_id, queries in answers.items():
        risen = after.get(task_id, 0) - before.get(task_id, 0)
        if risen != queries:
            raise Broken(f"GetUsage reports {risen} queries of a task instead of {queries}")


def cost_is_by_the_price(trial: Trial) -> None:
    """Checks that a call's cost follows from its usage and the card's price."""
    prompts = trial.prompts()
    for answer in (trial.ask(prompts), trial.ask(prompts)):
        expected = trial.card.price.cost_micros(answer.usage)
        if abs(answer.usage.cost_micros - expected) > MICROS_TOLERANCE:
            raise Broken(f"a call costs {answer.usage.cost_micros} micros; the card's price says {expected}")


def budget_is_told(trial: Trial) -> None:
    """Checks that a response reports the budget of GetUsage, and that a call does not increase it."""
    before = trial.usage().budget
    answer = trial.ask(trial.prompts(2))
    after = trial.usage().budget
    if answer.response.budget != after:
        raise Broken(f"the response reports {_shown(answer.response.budget)}, and GetUsage {_shown(after)}")
    for name in ("queries", "tokens"):
        if before.HasField(name) != after.HasField(name) or getattr(after, name) > getattr(before, name):
            raise Broken(f"the budget was {_shown(before)} before the call and {_shown(after)} after it")


def _shown(message: Any) -> str:
    return str(message).replace("\n", " ").strip() or "no limits"


def only_scores_cost(trial: Trial) -> None:
    """Checks that no call but Score costs anything."""
    trial.ask(trial.prompts(1))
    before = trial.usage().usage
    handle = trial.register(trial.me.inputs.task(turned=1), trial.me.inputs.examples(trial.rows, turned=1))
    trial.call("Describe", pb.DescribeRequest())
    trial.call("Release", pb.ReleaseRequest(examples_id=handle))
    after = trial.usage().usage
    if after != before:
        raise Broken(f"calls other than Score raised the usage from {_shown(before)} to {_shown(after)}")


def handles_are_counted(trial: Trial) -> None:
    """Checks that GetUsage counts registered handles."""
    task, examples = trial.me.inputs.task(), trial.me.inputs.examples(trial.rows)
    none = trial.usage().handles
    handle = trial.register(task, examples)
    one = trial.usage().handles
    trial.call("Release", pb.ReleaseRequest(examples_id=handle))
    again = trial.usage().handles
    if (one, again) != (none + 1, none):
        raise Broken(f"GetUsage reports {none} handles, {one} after one more is registered, {again} after its release")


def same_examples_same_handle(trial: Trial) -> None:
    """Checks that equal sets of examples share a handle, and that different sets do not."""
    task, inputs = trial.me.inputs.task(), trial.me.inputs
    first, again = (trial.register(task, inputs.examples(trial.rows)) for _ in range(2))
    other = trial.register(task, inputs.examples(trial.rows[::-1]))
    if first != again or first == other:
        raise Broken(f"the same examples get the handles {first!r} and {again!r}, others {other!r}")


def _keyed(trial: Trial, key: str, seed: str = "") -> Answer:
    examples = trial.me.inputs.examples(trial.rows)
    return trial.score((trial.me.inputs.task(), examples), trial.prompts(2, seed=seed), len(trial.rows), key)


def key_gives_the_first_answer(trial: Trial) -> None:
    """Checks that a call with a known idempotency key gets the first answer at no cost."""
    key = secrets.token_hex(16)
    first, before = _keyed(trial, key), trial.usage().usage
    again, after = _keyed(trial, key), trial.usage().usage
    if not np.array_equal(first.answer, again.answer):
        raise Broken("the repeated call gets a different answer")
    if after != before:
        raise Broken(f"the repeated call costs {_difference(after, before).queries} queries")


def key_of_another_request(trial: Trial) -> None:
    """Checks that the idempotency key of a different request is rejected."""
    key = secrets.token_hex(16)
    _keyed(trial, key)
    try:
        _keyed(trial, key, "another")
    except Refused as refused:
        if (refused.code, refused.reason) == ("INVALID_ARGUMENT", "InvalidRequest"):
            return
        raise
    raise Broken("the key of another request is accepted")
