"""A sink that is slow or fails neither slows nor ends a run."""

import logging
import threading
from collections.abc import Callable

import pytest

from fedbbpt.sinks.delivery import Delivery
from fedbbpt.sinks.sink import Sink
from tests.sinks import Recording

CLOSE_SECONDS = 30.0


def deliver(sink: Sink, *calls: Callable[[Sink], None], most: int = 100) -> Delivery:
    delivery = Delivery(lambda: sink, "log.test", close_seconds=CLOSE_SECONDS, most=most, retry_seconds=(0.001,))
    for call in calls:
        delivery.tell(call)
    return delivery


def told(text: str) -> Callable[[Sink], None]:
    """Returns a call that any recording sink notes down."""
    return lambda sink: sink.end({"text": text})


def test_calls_arrive_in_order_and_the_sink_is_closed() -> None:
    sink = Recording()
    deliver(sink, told("a"), told("b"), told("c")).close()
    assert sink.calls == [("end", {"text": "a"}), ("end", {"text": "b"}), ("end", {"text": "c"}), ("close", None)]


def test_a_call_that_failed_is_repeated_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    sink = Recording(failures=3)
    delivery = deliver(sink, told("a"), told("b"))
    assert sink.closed_after(2, delivery)
    assert [what for what, _ in sink.calls] == ["end", "end", "close"]
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        "log.test: the tool is away; trying again, and the run goes on"
    ]


def test_a_sink_that_cannot_be_opened_is_opened_later() -> None:
    sink, attempts = Recording(), iter([OSError("not yet"), None])

    def opens() -> Sink:
        if (error := next(attempts)) is not None:
            raise error
        return sink

    delivery = Delivery(opens, "log.test", close_seconds=CLOSE_SECONDS, retry_seconds=(0.001,))
    delivery.tell(told("a"))
    assert sink.closed_after(1, delivery)


def test_telling_a_stuck_sink_returns_at_once_and_the_oldest_records_are_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, entered = threading.Event(), threading.Event()

    def block(sink: Sink) -> None:
        entered.set()
        stuck.wait()

    sink = Recording()
    delivery = deliver(sink, block, most=3)
    assert entered.wait(CLOSE_SECONDS)
    for text in "abcd":
        delivery.tell(told(text))
    stuck.set()
    delivery.close()
    assert sink.calls == [("end", {"text": "c"}), ("end", {"text": "d"}), ("close", None)]
    assert "records that were not delivered: 2" in caplog.text


def test_closing_gives_up_on_a_sink_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    stuck = threading.Event()

    def block(sink: Sink) -> None:
        stuck.wait()

    delivery = Delivery(Recording, "log.test", close_seconds=0.01)
    delivery.tell(block)
    delivery.close()
    assert "log.test: records that were not delivered: 1; the run's own files have them" in caplog.text
    stuck.set()


def test_closing_gives_up_on_a_sink_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    delivery = deliver(Recording(failures=1_000_000), told("a"), told("b"))
    delivery.close()
    assert "records that were not delivered: 2" in caplog.text
