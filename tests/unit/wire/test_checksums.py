"""Checksums of messages: every changed bit is noticed, and callers without checksums are served as before."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import ChecksumMismatch
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.checksummed_channel import ChecksummedChannel
from fedbbpt.wire.checksums import METADATA, is_sealed, sealed, unsealed

MESSAGE = pb.LeaveRequest(session="anna")


@given(data=st.binary(max_size=200))
def test_a_sealed_message_opens_to_its_bytes(data: bytes) -> None:
    assert unsealed(sealed(data)) == data


@given(data=st.binary(max_size=40), draw=st.data())
def test_every_changed_bit_is_noticed(data: bytes, draw: st.DataObject) -> None:
    """Kills: a checksum that counts as absent when its own bytes are damaged."""
    whole = sealed(data)
    bit = draw.draw(st.integers(0, 8 * len(whole) - 1))
    damaged = bytes(byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(whole))
    with pytest.raises(ChecksumMismatch):
        unsealed(damaged)


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7])
def test_a_message_that_was_cut_short_is_refused(length: int) -> None:
    with pytest.raises(ChecksumMismatch):
        unsealed(sealed(b"some message")[:length])


def test_a_parser_that_knows_no_checksums_reads_the_message() -> None:
    read = pb.LeaveRequest.FromString(sealed(MESSAGE.SerializeToString()))
    assert read.session == MESSAGE.session


class Echo:
    """A channel whose calls are answered by `answer`, with the bytes that were sent."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.sent: list[tuple[bytes, Any]] = []

    def unary_unary(self, method: str, write: Any, read: Any) -> Any:
        def call(request: Any, *, timeout: float | None, metadata: Any) -> Any:
            self.sent.append((write(request), metadata))
            return read(self.answers.pop(0))

        return call


def leave_over(echo: Any) -> Any:
    channel = ChecksummedChannel(lambda: echo)
    return channel.unary_unary("leave", pb.LeaveRequest.SerializeToString, pb.LeaveRequest.FromString)


def test_answers_need_a_checksum_once_the_service_has_sent_one() -> None:
    echo: Any = Echo()
    leave = leave_over(echo)
    plain = MESSAGE.SerializeToString()
    echo.answers = [plain, sealed(plain), sealed(plain), plain]
    assert [leave(MESSAGE, metadata=[("a", "b")]) for _ in range(3)] == [MESSAGE] * 3
    with pytest.raises(ChecksumMismatch):
        leave(MESSAGE)
    damaged = leave_over(echo)
    echo.answers = [bytes([plain[0]]) + b"\x7f" + sealed(plain)[2:]]
    with pytest.raises(ChecksumMismatch):
        damaged(MESSAGE)
    assert all(is_sealed(sent) and METADATA in metadata for sent, metadata in echo.sent)
    assert ("a", "b") in echo.sent[0][1]
