"""What is kept of a cell of the grid: one method, one split, one seed; a JSON file each."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Point(BaseModel):
    """A round of which test accuracy was measured, after the search had ended and unseen by it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    round: int
    queries: int
    """All that the clients had asked until this round's prompt was there and measured on dev data, training and dev."""
    bytes: int
    """Up and down, all clients, until this round's prompt was there."""
    last: float
    """Test accuracy of this round's prompt."""
    best: float
    """Test accuracy of the best prompt so far by dev data."""


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    split: str
    """The Dirichlet partition's alpha, or iid."""
    seed: int
    curve: tuple[Point, ...]
    answers: int
    """How many updates all clients sent together."""
    bytes_up: int
    bytes_down: int
    queries_evaluation: int
    test_examples: int
    seconds: float
    """Of the search, without the measurement on test examples."""

    @property
    def end(self) -> Point:
        return self.curve[-1]

    @property
    def below_peak(self) -> float:
        """How far the best prompt by dev data ends below its own peak on test data."""
        return max(point.best for point in self.curve) - self.end.best

    def queries_to(self, target: float) -> int | None:
        """At the first measured round whose best prompt so far has this accuracy."""
        return next((point.queries for point in self.curve if point.best >= target), None)

    @property
    def up_per_answer(self) -> float:
        return self.bytes_up / self.answers if self.answers else 0.0

    @property
    def down_per_answer(self) -> float:
        return self.bytes_down / self.answers if self.answers else 0.0


def write_record(path: Path, record: Record) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_record(path: Path) -> Record:
    return Record.model_validate_json(path.read_text(encoding="utf-8"))
