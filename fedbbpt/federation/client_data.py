"""The private examples of a client that joins a run: those that it tunes on, and those that it measures prompts on."""

from collections.abc import Sequence

import numpy as np

from fedbbpt.data.columns import Columns
from fedbbpt.data.examples import Table, check_trainable, label, label_names, read_table
from fedbbpt.data.partition import Rows, split
from fedbbpt.errors import InvalidData
from fedbbpt.types import LabelledExamples

DEV_SHARE = 0.25
"""Share of its examples that a client without dev examples measures prompts on."""


class ClientData:
    """A client's examples. Their classes are known only when the client has joined and learnt the run's labels."""

    def __init__(self, data: str, dev: str, columns: Columns) -> None:
        """Reads the examples.

        Args:
            data: The source of the training examples.
            dev: The source of the dev examples. If it is empty, a quarter of `data` is held out, the same at every
                start.
            columns: The names of the columns.

        Raises:
            InvalidData: A source cannot be read, or is too small to hold out examples.
        """
        self._table = read_table(data, columns)
        self._dev = read_table(dev, columns) if dev else None
        self._train_rows: Rows = np.arange(len(self._table.labels))
        self._dev_rows: Rows = np.arange(0)
        if self._dev is None:
            self._train_rows, self._dev_rows = _hold_out(self._table)

    @property
    def train_size(self) -> int:
        """The number of training examples."""
        return len(self._train_rows)

    def labelled(self, labels: Sequence[str], *, one_class: bool) -> tuple[LabelledExamples, LabelledExamples]:
        """Returns the training and the dev examples, with classes numbered as in the run's labels.

        Args:
            labels: The names of the run's classes.
            one_class: Whether the examples may all be of a single class.

        Raises:
            InvalidData: A label is not among `labels`, or there is only one class.
        """
        whole = label(self._table, labels)
        if not one_class:
            try:
                check_trainable(whole, labels, self._table.source)
            except InvalidData as error:
                raise InvalidData(error.what, where=error.where, fix=f"{error.fix}, or --one-class") from None
        dev = label(self._dev, labels) if self._dev is not None else whole.take(self._dev_rows)
        return whole.take(self._train_rows), dev


def _hold_out(table: Table) -> tuple[Rows, Rows]:
    """The rows to tune on and the rows to measure prompts on."""
    train, dev = split(label(table, label_names(table)).labels, (1 - DEV_SHARE, DEV_SHARE), seed=0)
    if not len(dev) or not len(train):
        what = f"{len(table.labels)} examples are too few to hold some out"
        raise InvalidData(what, where=table.source, fix="more examples, or --dev FILE")
    return train, dev
