"""Replies by idempotency key."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fedbbpt.errors import InvalidRequest
from fedbbpt.ptm.tenants.idempotency import OVERHEAD_BYTES, Attempts, ReplyCache


class Maker:
    """Computes numbered answers once `go` is set."""

    def __init__(self) -> None:
        self.made, self.cancelled, self.go = 0, False, asyncio.Event()

    async def __call__(self, attempts: Attempts) -> bytes:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.made += 1
        return b"answer %d" % self.made


def run(scenario: Callable[[ReplyCache, Maker], Awaitable[None]]) -> None:
    async def play() -> None:
        await scenario(ReplyCache(seconds=10.0, max_bytes=10_000, clock=lambda: 0.0), Maker())

    asyncio.run(play())


def test_repeated_call_gets_the_same_reply() -> None:
    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        together = [asyncio.ensure_future(replies.get_or_compute("key", b"request", maker)) for _ in range(2)]
        maker.go.set()
        assert await together[0] == await together[1] == await replies.get_or_compute("key", b"request", maker)
        assert await replies.get_or_compute("other key", b"request", maker) == b"answer 2"

    run(scenario)


def test_key_of_another_request_is_rejected() -> None:
    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        maker.go.set()
        await replies.get_or_compute("key", b"request", maker)
        with pytest.raises(InvalidRequest, match="another request"):
            await replies.get_or_compute("key", b"other", maker)
        with pytest.raises(InvalidRequest, match="at most 64"):
            await replies.get_or_compute("k" * 65, b"request", maker)

    run(scenario)


def test_call_without_waiting_callers_is_cancelled() -> None:
    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        calls = [asyncio.ensure_future(replies.get_or_compute("key", b"request", maker)) for _ in range(2)]
        await asyncio.sleep(0)
        calls[0].cancel()
        await asyncio.wait({calls[0]})
        assert not maker.cancelled  # one still waits
        calls[1].cancel()
        await asyncio.wait({calls[1]})
        await asyncio.sleep(0)
        assert maker.cancelled is True
        maker.go.set()
        assert await replies.get_or_compute("key", b"request", maker) == b"answer 1"

    run(scenario)


def test_next_attempt_knows_the_charged_queries() -> None:
    """Kills: an attempt that begins while the one before still adds charges; charges that only the next one sees."""

    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        told: list[int] = []

        async def computing(attempts: Attempts) -> bytes:
            told.append(attempts.charged_queries)
            try:
                await maker.go.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)  # let running micro-batches end
                await asyncio.sleep(0)
                attempts.charged_queries += 4
                raise
            return b"answer"

        for attempt in (1, 2):
            call = asyncio.ensure_future(replies.get_or_compute("key", b"request", computing))
            while len(told) < attempt:
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait({call})
        maker.go.set()
        assert await replies.get_or_compute("key", b"request", computing) == b"answer"
        assert told == [0, 4, 8]
        with pytest.raises(InvalidRequest, match="another request"):
            await replies.get_or_compute("key", b"other", computing)

    run(scenario)


def test_reply_of_a_cancelled_call_is_kept() -> None:
    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        async def finishing(attempts: Attempts) -> bytes:
            maker.made += 1
            try:
                await maker.go.wait()
            except asyncio.CancelledError:
                await asyncio.sleep(0)
            return b"answer %d" % maker.made

        call = asyncio.ensure_future(replies.get_or_compute("key", b"request", finishing))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait({call})
        assert await replies.get_or_compute("key", b"request", finishing) == b"answer 1"

    run(scenario)


def test_failed_call_is_computed_again() -> None:
    async def scenario(replies: ReplyCache, maker: Maker) -> None:
        async def fail(attempts: Attempts) -> bytes:
            raise ValueError("broken")

        maker.go.set()
        with pytest.raises(ValueError, match="broken"):
            await replies.get_or_compute("key", b"request", fail)
        assert await replies.get_or_compute("key", b"request", maker) == b"answer 1"

    run(scenario)


def test_replies_are_dropped_by_age_and_size() -> None:
    now = [0.0]

    async def play() -> None:
        replies, maker = ReplyCache(seconds=10.0, max_bytes=2 * (8 + OVERHEAD_BYTES), clock=lambda: now[0]), Maker()
        maker.go.set()
        for key in "abc":
            await replies.get_or_compute(key, b"request", maker)
        assert await replies.get_or_compute("c", b"request", maker) == b"answer 3"
        assert await replies.get_or_compute("a", b"request", maker) == b"answer 4"  # three were too many
        now[0] = 11.0
        assert await replies.get_or_compute("a", b"request", maker) == b"answer 5"

    asyncio.run(play())
