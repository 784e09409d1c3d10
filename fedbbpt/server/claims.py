"""What an update claims of its client's examples, against what the coordinator can know of them.

It knows the number of training examples that the client joined with, how many dev examples the client has measured
before, and what the criterion allows. It does not know the examples. So a client can still lie within these bounds:
`server.robust` limits what that changes.
"""

from dataclasses import dataclass

import numpy as np

from fedbbpt.errors import InvalidUpdate
from fedbbpt.limits import MAX_UPDATE_COUNT
from fedbbpt.methods.update_rules import UpdateRules, Weight
from fedbbpt.tasks.criterion import MAX_LOSS
from fedbbpt.types import Measurement, Phase, Sampling, TaskId, Update

ROUNDING = 1e-5
"""Relative error of numbers that travel as float32."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a client and of the task that it answers."""

    examples: int
    """The number of training examples that the client joined with."""
    relay: bool
    """Whether it is a relay, whose updates are sums over those of its clients that have answered."""
    rules: UpdateRules
    """What every honest update to the broadcast satisfies; empty for a task that asks for no arrays."""
    measures: bool
    """Whether the task asks for a dev measurement."""
    most_dev: int
    """The most dev examples that it asks for; 0: all of them."""
    dev_examples: int | None
    """The number of dev examples of the client's measurements before; None if there was none, or if it may differ."""


def known(
    task_id: TaskId,
    rules: UpdateRules,
    sampling: Sampling,
    *,
    fits: bool,
    examples: int,
    relay: bool,
    dev_examples: int | None,
) -> Known:
    """Returns what is known of a client's answer to a task.

    Args:
        task_id: The task.
        rules: Those of the method for the task's broadcast.
        sampling: That of the run.
        fits: Whether the task is of a round that fits a readout, which is always measured.
        examples: The number of training examples that the client joined with.
        relay: Whether it is a relay.
        dev_examples: The number of dev examples that it measured before; None if it has not.
    """
    searches = task_id.phase is Phase.UPDATE
    measures = task_id.phase is Phase.EVALUATE or (searches and (fits or sampling.measures(task_id.round)))
    return Known(
        examples=examples,
        relay=relay,
        rules=UpdateRules() if task_id.phase is Phase.EVALUATE else rules,
        measures=measures,
        most_dev=sampling.batch_examples if searches and not relay else 0,
        dev_examples=None if relay or sampling.batch_examples else dev_examples,
    )


def check_claims(update: Update, claimed: Known, *, in_ranges: bool = True) -> None:
    """Raises InvalidUpdate if no client with these examples could have sent the decoded update.

    Args:
        update: The update, with its arrays decoded.
        claimed: What is known of its client and its task.
        in_ranges: Whether arrays are compared with the ranges of the method.
    """
    _check_weight(update, claimed)
    _check_dev_examples(update.measurement, claimed)
    _check_loss(update.measurement, "measurement")
    for place, measured in enumerate(update.finalists):
        _check_loss(measured, f"finalists[{place}]")
    if in_ranges:
        _check_ranges(update, claimed.rules)
        claimed.rules.check(update)


def _check_weight(update: Update, claimed: Known) -> None:
    weight, examples = update.weight, claimed.examples
    match claimed.rules.weight:
        case Weight.ANY:
            right, fix = weight <= MAX_UPDATE_COUNT, f"at most {MAX_UPDATE_COUNT}"
        case Weight.ONE:
            right, fix = weight == 1, "1, as of every client of this method"
        case Weight.EXAMPLES if not claimed.relay:
            right, fix = weight == examples, f"{examples}, the number of examples that the client joined with"
        case Weight.READ_WHOLE:
            dev = _count(update, "dev_weight")
            right, fix = 1 <= weight - dev <= examples, f"at most {examples} training examples besides {dev} for dev"
        case _:
            right, fix = 1 <= weight <= examples, f"at most {examples}, which the client joined with"
    if not right or (claimed.rules.weight is not Weight.ANY and weight != int(weight)):
        raise InvalidUpdate(f"{weight:g}", where="weight", fix=fix)
    if claimed.rules.weight in (Weight.READ, Weight.READ_WHOLE):
        dev, most = _count(update, "dev_weight"), update.measurement.dev_examples
        if not claimed.most_dev and dev > most:
            raise InvalidUpdate(f"{dev}", where="dev_weight", fix=f"at most {most}, as in measurement.dev_examples")


def _count(update: Update, name: str) -> int:
    """Returns the number of examples in an array of one element, which travelled as float32."""
    found = float(update.arrays[name][0])
    if not 0 <= found <= MAX_UPDATE_COUNT or not np.isclose(found, round(found), rtol=ROUNDING, atol=0):
        raise InvalidUpdate(f"{found:g}", where=name, fix="a number of examples")
    return round(found)


def _check_dev_examples(measured: Measurement, claimed: Known) -> None:
    found, before = measured.dev_examples, claimed.dev_examples
    where = "measurement.dev_examples"
    if not claimed.measures and found:
        raise InvalidUpdate(f"{found}", where=where, fix="0, because the task asks for no measurement")
    if claimed.measures and before is not None and found != before:
        raise InvalidUpdate(f"{found}", where=where, fix=f"{before}, as in the client's measurements before")
    if claimed.most_dev and found > claimed.most_dev:
        raise InvalidUpdate(f"{found}", where=where, fix=f"at most {claimed.most_dev}, the run's batch_examples")


def _check_loss(measured: Measurement, where: str) -> None:
    """Checks a sum of losses, which are cross-entropies, or 1 for a wrong answer and 0 for a right one."""
    most = measured.dev_examples * MAX_LOSS
    if measured.dev_loss_sum > most:
        fix = f"at most {most:g} for {measured.dev_examples} dev examples"
        raise InvalidUpdate(f"{measured.dev_loss_sum:g}", where=f"{where}.dev_loss_sum", fix=fix)


def _check_ranges(update: Update, rules: UpdateRules) -> None:
    for name, (low, high) in rules.ranges.items():
        each = update.arrays[name] / update.weight
        slack = ROUNDING * max(abs(low), 0.0)
        if not (each.min(initial=low) >= low - slack and each.max(initial=low) <= high * (1 + ROUNDING)):
            worst = each.min() if each.min() < low - slack else each.max()
            raise InvalidUpdate(f"{worst:g} for each example", where=name, fix=f"from {low:g} to {high:g}")
