"""What is counted, and what is not."""

import secrets
from typing import Any

import numpy as np

from fedbbpt.conformance.inputs import take
from fedbbpt.conformance.target import Refused
from fedbbpt.conformance.trial import Answer, Broken, Trial
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import Usage
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.messages.usage_messages import usage

COUNTED = ("queries", "tokens", "cached_queries", "cost_micros")
SECONDS = ("compute_seconds", "queue_seconds")
SECONDS_TOLERANCE = 1e-3
MICROS_TOLERANCE = 1
"""Of a call: prices of thousand tokens round."""


def usage_adds_up(trial: Trial) -> None:
    """Calls with new pairs, known ones and inline ones: their usages sum to what GetUsage rises by."""
    before = trial.usage()
    prompts = trial.prompts()
    asked = [trial.ask(prompts), trial.ask(prompts), trial.ask(take(prompts, [0]), inline=True)]
    after = trial.usage()
    for answer, number in zip(asked, (len(asked[0].answer), len(asked[0].answer), 1), strict=True):
        _check(answer.usage, number * len(trial.rows))
    risen = _difference(after.usage, before.usage)
    total = sum((answer.usage for answer in asked), Usage())
    for name in COUNTED:
        if getattr(risen, name) != getattr(total, name):
            raise Broken(f"calls add up to {name} = {getattr(total, name)}; GetUsage rose by {getattr(risen, name)}")
    for name in SECONDS:
        if abs(getattr(risen, name) - getattr(total, name)) > SECONDS_TOLERANCE:
            raise Broken(
                f"calls add up to {getattr(total, name):.6f} {name}; GetUsage rose by {getattr(risen, name):.6f}"
            )


def _check(used: Usage, queries: int) -> None:
    if used.queries != queries:
        raise Broken(f"a call of {queries} pairs says that it used {used.queries} queries")
    if not 0 <= used.cached_queries <= used.queries:
        raise Broken(f"{used.cached_queries} cached queries of {used.queries}")
    if min(used.tokens, used.compute_seconds, used.queue_seconds, used.cost_micros) < 0:
        raise Broken(f"a negative usage: {used}")


def _difference(after: pb.Usage, before: pb.Usage) -> Usage:
    late, early = usage(after), usage(before)
    return Usage(*(getattr(late, name) - getattr(early, name) for name in Usage.__dataclass_fields__))


def tasks_have_their_own_usage(trial: Trial) -> None:
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
        if after.get(task_id, 0) - before.get(task_id, 0) != queries:
            raise Broken(
                f"GetUsage says {after.get(task_id, 0) - before.get(task_id, 0)} queries of a task, not {queries}"
            )


def cost_is_by_the_price(trial: Trial) -> None:
    prompts = trial.prompts()
    for answer in (trial.ask(prompts), trial.ask(prompts)):
        expected = trial.card.price.cost_micros(answer.usage)
        if abs(answer.usage.cost_micros - expected) > MICROS_TOLERANCE:
            raise Broken(f"a call costs {answer.usage.cost_micros} micros; by the card's price, {expected}")


def budget_is_told(trial: Trial) -> None:
    """The answer's budget is that of GetUsage, and does not grow by asking."""
    before = trial.usage().budget
    answer = trial.ask(trial.prompts(2))
    after = trial.usage().budget
    if answer.response.budget != after:
        raise Broken(f"the answer says {_shown(answer.response.budget)}, GetUsage {_shown(after)}")
    for name in ("queries", "tokens"):
        if before.HasField(name) != after.HasField(name) or getattr(after, name) > getattr(before, name):
            raise Broken(f"the budget was {_shown(before)} before the call, and is {_shown(after)} after it")


def _shown(message: Any) -> str:
    return str(message).replace("\n", " ").strip() or "no limits"


def only_scores_cost(trial: Trial) -> None:
    trial.ask(trial.prompts(1))
    before = trial.usage().usage
    handle = trial.register(trial.me.inputs.task(turned=1), trial.me.inputs.examples(trial.rows, turned=1))
    trial.call("Describe", pb.DescribeRequest())
    trial.call("Release", pb.ReleaseRequest(examples_id=handle))
    after = trial.usage().usage
    if after != before:
        raise Broken(f"Describe, registering and Release cost {_shown(after)} where there was {_shown(before)}")


def handles_are_counted(trial: Trial) -> None:
    task, examples = trial.me.inputs.task(), trial.me.inputs.examples(trial.rows)
    none = trial.usage().handles
    handle = trial.register(task, examples)
    one = trial.usage().handles
    trial.call("Release", pb.ReleaseRequest(examples_id=handle))
    again = trial.usage().handles
    if (one, again) != (none + 1, none):
        raise Broken(f"GetUsage says {none} handles, with one more {one}, after its release {again}")


def same_examples_same_handle(trial: Trial) -> None:
    task, inputs = trial.me.inputs.task(), trial.me.inputs
    first, again = (trial.register(task, inputs.examples(trial.rows)) for _ in range(2))
    other = trial.register(task, inputs.examples(trial.rows[::-1]))
    if first != again or first == other:
        raise Broken(f"handles {first!r} and {again!r} of the same examples, {other!r} of others")


def _keyed(trial: Trial, key: str, seed: str = "") -> Answer:
    examples = trial.me.inputs.examples(trial.rows)
    return trial.score((trial.me.inputs.task(), examples), trial.prompts(2, seed=seed), len(trial.rows), key)


def key_gives_the_first_answer(trial: Trial) -> None:
    key = secrets.token_hex(16)
    first, before = _keyed(trial, key), trial.usage().usage
    again, after = _keyed(trial, key), trial.usage().usage
    if not np.array_equal(first.answer, again.answer):
        raise Broken("another answer")
    if after != before:
        raise Broken(f"the same key again costs {_difference(after, before).queries} queries more")


def key_of_another_request(trial: Trial) -> None:
    key = secrets.token_hex(16)
    _keyed(trial, key)
    try:
        _keyed(trial, key, "another")
    except Refused as refused:
        if (refused.code, refused.reason) == ("INVALID_ARGUMENT", "InvalidRequest"):
            return
        raise
    raise Broken("a key that another request had is taken")
