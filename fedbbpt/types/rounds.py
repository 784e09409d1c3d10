"""A round: its tasks, the updates that answer them, and receipts."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from fedbbpt.types.arrays import Arrays


class Phase(StrEnum):
    """The kind of work in a task. coordinator.proto describes each phase."""

    UPDATE = "update"
    EVALUATE = "evaluate"
    TUNE = "tune"
    """The model owner's turn, between two client rounds."""


OWNER = "owner"
"""The client id of the model's owner, in runs where the owner has a turn."""


FINALISTS = "finalists"
"""The array of prompts z, float32 `[F, n]`, that a task of the phase EVALUATE may have besides the broadcast."""


class Receipt(StrEnum):
    """The coordinator's answer to an update. coordinator.proto describes each receipt."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    TOO_LATE = "too-late"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, order=True)
class TaskId:
    """Names a task. It is also the idempotency key of its update."""

    run_id: str
    round: int
    client_id: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Task:
    """The work of one client in one round."""

    id: TaskId
    seed: int
    """The same for all clients of the round."""
    arrays: Arrays
    """The arrays that the method broadcasts."""
    deadline_seconds: float
    """The time until the round may close without this client."""
    traceparent: str = ""
    """The round's place in its trace; empty without one."""


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
        """Returns the sum. `dev_correct` is None if either side has dev examples but no count of correct ones."""
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
    """A client's answer to a task.

    The arrays are already multiplied by `weight`, so updates can be summed, except for arrays of `Orders`. On the wire
    and in the store they are scaled (`codecs.travelling`) and encoded.
    """

    arrays: Arrays
    weight: float
    measurement: Measurement = Measurement()
    """The measurement by the client's agent; a client half leaves it at zero."""
    client_id: str = ""
    """The client of the session that submitted the update; empty on the client itself, and for a sum."""
    finalists: tuple[Measurement, ...] = ()
    """In the last round of a run that measures on samples: the measurements of the finalists, in the task's order.

    Their queries are counted in `measurement` alone.
    """


@dataclass(frozen=True, slots=True)
class Orders:
    """The form of an array of rankings, uint8 `[rows, places]`: each row holds different indices of candidates."""

    rows: int
    places: int
    candidates: int
    """Number of candidates, at most 256."""


def merge(updates: Sequence[Update]) -> Update:
    """Returns the sum of updates, added in order.

    A method is linear if `[merge(updates)]` gives its server the same result as `updates`.
    """
    if not updates:
        raise ValueError("merge needs at least one update")
    names = updates[0].arrays.keys()
    return Update(
        arrays={name: sum((u.arrays[name] for u in updates[1:]), updates[0].arrays[name]) for name in names},
        weight=sum((u.weight for u in updates[1:]), updates[0].weight),
        measurement=sum((u.measurement for u in updates), Measurement()),
        finalists=tuple(sum(each, Measurement()) for each in zip(*(u.finalists for u in updates), strict=True)),
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of white-box training by AdamW. Each stage starts with a new optimizer."""

    steps: int
    batch_size: int
    learning_rate: float
    """The highest learning rate."""
    weight_decay: float
    epsilon: float
    warmup: float
    """The share of the steps in which the learning rate rises from 0. After them it falls to 0."""
