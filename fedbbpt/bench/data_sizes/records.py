"""The results of a cell: the test accuracies of one or several methods on one split and seed."""

from pydantic import BaseModel, ConfigDict

from fedbbpt.bench.methods.rows import Learns

BEST_ALONE = "best alone"
"""The best that a member has alone: its choice among the methods without a search, by its own dev examples."""


class Result(BaseModel):
    """The test accuracy of a method and its price."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    learns: Learns
    accuracy: float
    """From 0 to 1. For members who learn alone, it is the mean over them."""
    queries: int
    """Queries of all members on training and dev examples."""


class Record(BaseModel):
    """The results and the data of one cell."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: str
    """The alpha of the Dirichlet partition, or iid."""
    shots: int
    """Training examples of each class over all members; 0: as many as there are, up to the grid's limit."""
    seed: int
    results: tuple[Result, ...]
    train_examples: int
    dev_examples: int
    test_examples: int
    seconds: float
