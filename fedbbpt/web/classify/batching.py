"""Collects the inputs of concurrent requests, so that a model is asked about many at a time.

One thread asks. While it waits for the answer, further requests gather, and the next call takes them together.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Condition, Thread
from types import TracebackType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidInput, Overloaded, Unavailable
from fedbbpt.types import Examples

BATCH_TEXTS = 256
"""Texts of one call, except that a request is never divided here."""
WAITING_TEXTS = 4096
"""Texts that may wait for the next call."""
END_SECONDS = 5.0
"""How long the end waits for an answer of the model."""

Likely: TypeAlias = npt.NDArray[np.float64]
"""The probability of each class for each input, `[B, K]`."""
Classify: TypeAlias = Callable[[Examples], Likely]


@dataclass(frozen=True, slots=True)
class _Request:
    examples: Examples
    answer: Future[Likely]


class Batcher:
    """Classifies the texts of many requests in few calls. Either all requests have second texts, or none.

    It is a context manager: its thread runs inside.
    """

    def __init__(
        self, classify: Classify, *, batch_texts: int = BATCH_TEXTS, waiting_texts: int = WAITING_TEXTS
    ) -> None:
        """
        Args:
            classify: Classifies a batch; it is called in one thread only.
            batch_texts: The most texts of a batch, unless one request has more.
            waiting_texts: The most texts that wait.
        """
        self._classify, self._batch_texts, self._waiting_texts = classify, batch_texts, waiting_texts
        self._queue, self._waiting, self._ended = deque[_Request](), 0, False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="classify", daemon=True)

    def __enter__(self) -> "Batcher":
        """Starts the thread."""
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Ends the thread after the call that is under way. Requests that wait get Unavailable."""
        with self._changed:
            self._ended = True
            left = list(self._queue)
            self._queue.clear()
            self._changed.notify()
        for one in left:
            if one.answer.set_running_or_notify_cancel():
                one.answer.set_exception(_ending())
        self._thread.join(END_SECONDS)

    def ask(self, examples: Examples) -> Future[Likely]:
        """Returns the future answer for one request's texts. A request whose answer is cancelled is not asked.

        Raises:
            Overloaded: Too many texts wait already.
            Unavailable: The server is ending.
        """
        one = _Request(examples, Future())
        with self._changed:
            if self._ended:
                raise _ending()
            if self._waiting + len(examples) > self._waiting_texts:
                what = f"{self._waiting} texts wait already, and at most {self._waiting_texts} may"
                raise Overloaded(what, where="classify", fix="try again later")
            self._waiting += len(examples)
            self._queue.append(one)
            self._changed.notify()
        return one.answer

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            if batch:
                self._answer(batch)

    def _next(self) -> list[_Request] | None:
        """Waits for requests, and returns those of the next call; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._ended)
            if self._ended:
                return None
            batch, texts = list[_Request](), 0
            while self._queue and (not batch or texts + len(self._queue[0].examples) <= self._batch_texts):
                one = self._queue.popleft()
                self._waiting -= len(one.examples)
                if one.answer.set_running_or_notify_cancel():
                    batch.append(one)
                    texts += len(one.examples)
            return batch

    def _answer(self, batch: list[_Request]) -> None:
        try:
            likely = self._classify(_joined([one.examples for one in batch]))
        except InvalidInput as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return
            for one in batch:  # only the request with the invalid text must fail
                self._answer([one])
        except Exception as error:
            for one in batch:
                one.answer.set_exception(error)
        else:
            ends = np.cumsum([len(one.examples) for one in batch])
            for one, rows in zip(batch, np.split(likely, ends[:-1]), strict=True):
                one.answer.set_result(rows)


def _joined(parts: list[Examples]) -> Examples:
    texts = tuple(text for part in parts for text in part.texts)
    pairs = tuple(pair for part in parts for pair in part.pairs or ())
    return Examples(texts, pairs or None)


def _ending() -> Unavailable:
    return Unavailable("the server is ending", where="classify", fix="try again at its next start")
