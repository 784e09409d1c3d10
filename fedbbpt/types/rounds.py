"""A round: tasks, updates, and what becomes of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedbbpt.types.arrays import Arrays


class Phase(StrEnum):
    """What a task asks for."""

    UPDATE = "update"
    EVALUATE = "evaluate"
    TUNE = "tune"
    """Of the model's owner, between two rounds of the clients."""


OWNER = "owner"
"""The client id of the model's owner in runs where it has a turn."""


class Receipt(StrEnum):
    """What became of an update."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too-late"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """Names one piece of work; its identity is its idempotency key."""

    run_id: str
    round: int
    client_id: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Task:
    """What a coordinator asks of one client in one round."""

    id: TaskId
    seed: int
    """The same for all clients of the round."""
    arrays: Arrays
    deadline_seconds: float


@dataclass(frozen=True, slots=True)
class Measurement:
    """The measurement of a broadcast prompt on one client's dev examples, and the cost of the task.

    Measurements add, and `Measurement()` is the zero. So all fields are sums and counts, never means.
    """

    dev_loss_sum: float = 0.0
    """The sum of the loss over the dev examples: cross-entropy in nats, or the number of wrong answers."""
    dev_examples: int = 0
    dev_correct: int | None = 0
    """The number of dev examples that are classified correctly; None if the PTM gives only losses."""
    queries: int = 0
    """The number of pairs of a prompt and an example that the task cost, on dev and training examples."""

    def __add__(self, other: "Measurement") -> "Measurement":
        measured = [each for each in (self, other) if each.dev_examples]
        correct = [each.dev_correct for each in measured if each.dev_correct is not None]
        return Measurement(
            dev_loss_sum=self.dev_loss_sum + other.dev_loss_sum,
            dev_examples=self.dev_examples + other.dev_examples,
            dev_correct=sum(correct) if len(correct) == len(measured) else None,
            queries=self.queries + other.queries,
        )


@dataclass(frozen=True, slots=True)
class Update:
    """A client's answer. `arrays` are multiplied by `weight` already, so updates add; `Orders` do not."""

    arrays: Arrays
    weight: float
    measurement: Measurement = Measurement()
    """What the client's agent measured; a client half leaves it at zero."""
    client_id: str = ""
    """Whose it is, as the session that brought it says; empty before that, and of a sum."""


@dataclass(frozen=True, slots=True)
class Orders:
    """An array of no numbers: uint8 `[rows, places]`, in each row different indices of that many candidates."""

    rows: int
    places: int
    candidates: int
    """At most 256."""


def merge(updates: Sequence[Update]) -> Update:
    """The sum of updates, in order. A method is linear when its server cannot tell `us` from `[merge(us)]`."""
    if not updates:
        raise ValueError("merge needs at least one update")
    names = updates[0].arrays.keys()
    return Update(
        arrays={name: sum((u.arrays[name] for u in updates[1:]), updates[0].arrays[name]) for name in names},
        weight=sum((u.weight for u in updates[1:]), updates[0].weight),
        measurement=sum((u.measurement for u in updates), Measurement()),
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of white-box training by AdamW, begun with a fresh optimizer."""

    steps: int
    batch_size: int
    learning_rate: float
    """At its highest."""
    weight_decay: float
    epsilon: float
    warmup: float
    """The share of the steps in which the learning rate rises from 0; then it falls to 0."""
