"""What an honest update to a task satisfies, whatever the client's examples are.

The coordinator, and a relay for its site, refuse every other update, so that a client that lies has to stay within what
an honest one could have sent. The bounds follow from the arithmetic of the criterion: a cross-entropy is not negative,
and over scores in float32 it is at most `criterion.MAX_LOSS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fedbbpt.tasks.criterion import MAX_LOSS
from fedbbpt.types import Update

Range = tuple[float, float]
"""The lowest and the highest number of an array, per unit of the update's weight."""

LOSS: Range = (0.0, MAX_LOSS)
"""The range of a mean cross-entropy."""
CHANGE: Range = (-MAX_LOSS, MAX_LOSS)
"""The range of a difference of two mean cross-entropies."""
NOT_NEGATIVE: Range = (0.0, float("inf"))


class Weight(StrEnum):
    """The weight that a method gives to an update."""

    ANY = "any"
    """Any positive number: the method does not say more."""
    ONE = "one"
    """1, whatever the number of examples."""
    EXAMPLES = "examples"
    """The number of the client's training examples."""
    READ = "read"
    """The number of training examples whose scores are finite."""
    READ_WHOLE = "read whole"
    """The number of training and dev examples whose scores are finite; `dev_weight` is that of the dev examples."""


def accept(update: Update) -> None:
    """Accepts every update."""


@dataclass(frozen=True, slots=True)
class UpdateRules:
    """The rules for the updates to one broadcast."""

    weight: Weight = Weight.ANY
    ranges: Mapping[str, Range] = field(default_factory=dict)
    """The range of each array that has one, by name."""
    ranked: str = ""
    """The name of the array of losses of which the server uses the order only, if there is one."""
    check: Callable[[Update], None] = accept
    """Checks what arrays and weight say about each other. Raises InvalidUpdate."""
