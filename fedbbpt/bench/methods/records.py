"""The results of a cell of the grid (one method, one split, one seed), each in a JSON file."""

from pydantic import BaseModel, ConfigDict


class Point(BaseModel):
    """A round whose test accuracy was measured. This happens after the search has ended and never influences it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    queries: int
    """Queries of all clients, training and dev, until this round's prompt was known and measured on dev examples.

    If rounds measure on samples, these include the last measurement of a run that ends here, with its finalists.
    """
    bytes: int
    """Bytes that all clients sent and received until this round's prompt was known."""
    last: float
    """Test accuracy of this round's prompt."""
    best: float
    """Test accuracy of the best prompt so far, by dev loss."""


class Record(BaseModel):
    """The result and the cost of one cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    split: str
    """The alpha of the Dirichlet partition, or iid."""
    seed: int
    curve: tuple[Point, ...]
    answers: int
    """Number of updates that all clients sent together."""
    bytes_up: int
    bytes_down: int
    queries_evaluation: int
    test_examples: int
    seconds: float
    """Duration of the search, without the measurement on test examples."""

    @property
    def end(self) -> Point:
        """The last measured round."""
        return self.curve[-1]

    @property
    def below_peak(self) -> float:
        """Distance from the highest test accuracy of the best prompt by dev loss to its last one, from 0 to 1."""
        return max(point.best for point in self.curve) - self.end.best

    def queries_to(self, target: float) -> int | None:
        """Returns the queries until the first measured round whose best prompt has this accuracy, None without one."""
        return next((point.queries for point in self.curve if point.best >= target), None)

    @property
    def up_per_answer(self) -> float:
        """Bytes that a client sends in a round."""
        return self.bytes_up / self.answers if self.answers else 0.0

    @property
    def down_per_answer(self) -> float:
        """Bytes that a client receives in a round."""
        return self.bytes_down / self.answers if self.answers else 0.0
