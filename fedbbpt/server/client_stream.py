"""The coordinator's side of a client's open TakePart: what is due to be sent, and waiting until something is."""

import asyncio
from collections.abc import Awaitable, Callable

from fedbbpt.secure.messages import FromServer
from fedbbpt.server.live_run import LiveRun
from fedbbpt.types import Receipt, RunState, TaskId
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.wire.messages.coordinator_messages import own_part, receipt_part
from fedbbpt.wire.messages.secure_messages import secure_part

_HEARTBEAT = pb.TakePartResponse(heartbeat=pb.Heartbeat()).SerializeToString()
_RECEIPTS = {receipt: receipt_part(receipt) for receipt in Receipt}


class ClientStream:
    """Sends tasks, receipts and heartbeats to one client, until the run has ended.

    A receipt and the task that is due at the same time share a message. Nothing here creates a timer for a round, since
    many rounds may fit into a heartbeat's interval.
    """

    def __init__(self, run: LiveRun, session: str, held: bytes | None, heartbeat_seconds: float) -> None:
        """
        Args:
            run: the client's run.
            session: the client's session with the run's coordinator.
            held: the digest of the state that the client holds, empty if it has none, or None if it does not replay.
            heartbeat_seconds: the longest silence.
        """
        self._run, self._session, self._held, self._heartbeat_seconds = run, session, held, heartbeat_seconds
        self._named, self._own = "", b""
        self._sent: TaskId | None = None
        self._receipts: list[Receipt] = []
        self._asked: list[FromServer] = []
        """What this stream has sent of secure aggregation's epoch and its open attempt."""
        self._masked: int | None = None
        """The round of the masked answer that has no receipt yet."""
        self._problem: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._spoken_at = run.now()
        self._silent = False
        self._ended = False

    def answer(self, answer: Receipt | Exception) -> None:
        """Sends the receipt of an update, or ends the stream with the error of what the client sent."""
        if isinstance(answer, Receipt):
            self._receipts.append(answer)
        else:
            self._problem = answer
        self.wake()

    def end_of(self, run: LiveRun, session: str) -> None:
        """Ends the stream if it is that of a session whose client has left."""
        if self._run is run and self._session == session:
            self._ended = True
            self.wake()

    def masked(self, round: int) -> None:
        """Sends the receipt of a masked answer when its round has ended."""
        self._masked = round
        self._find_receipt()
        if self._receipts:  # most rounds are open, and there is nothing to send
            self.wake()

    def wake(self) -> None:
        """Lets `send` see what is due now."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def send(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        """Writes each message when it is due, up to the run's end.

        Raises:
            SessionUnknown, SessionEvicted: the session is no longer valid.
            FedbbptError: the client sent something wrong.
        """
        loop = asyncio.get_running_loop()

        timer = loop.call_later(self._heartbeat_seconds, lambda: beat())

        def beat() -> None:
            nonlocal timer
            left = self._spoken_at + self._heartbeat_seconds - loop.time()
            if left <= 0:
                self._silent, left = True, self._heartbeat_seconds
                self.wake()
            timer = loop.call_later(left, beat)

        try:
            with self._run.waking(self.wake):
                while not self._ended:
                    messages = self._due()
                    if messages:
                        for message in messages:
                            await write(message)
                        self._spoken_at, self._silent = loop.time(), False
                    else:
                        self._waiting = loop.create_future()
                        await self._waiting
        finally:
            timer.cancel()

    def _due(self) -> list[bytes]:
        self._find_receipt()
        receipts, self._receipts = [_RECEIPTS[receipt] for receipt in self._receipts], []
        messages = [] if self._problem else self._events()
        parts = [] if self._problem or self._ended else self._secure_parts()
        if parts and messages:
            messages[0] += parts.pop(0)
        messages += parts
        if receipts and messages:
            messages[0] += receipts.pop()
        if self._problem and not receipts:
            raise self._problem
        return receipts + messages

    def _find_receipt(self) -> None:
        coordinator = self._run.coordinator
        if self._masked is not None:
            receipt = coordinator.receipt(coordinator.client_of(self._session), self._masked)
            if receipt is not None:
                self._receipts.append(receipt)
                self._masked = None

    def _secure_parts(self) -> list[bytes]:
        """Returns what is due of secure aggregation, each a serialised TakePartResponse."""
        coordinator = self._run.coordinator
        if coordinator.secure is None:
            return []
        due = coordinator.secure.due(coordinator.client_of(self._session))
        new = [message for message in due if not any(message is sent for sent in self._asked)]
        self._asked = list(due)
        return [secure_part(message) for message in new]

    def _events(self) -> list[bytes]:
        coordinator = self._run.coordinator
        if coordinator.state.ended:
            self._ended = True
            finished = pb.Finished(stopped=coordinator.state is RunState.STOPPED)
            return [pb.TakePartResponse(finished=finished).SerializeToString()]
        task = coordinator.task_for(self._session)
        if task is not None and task.id != self._sent:
            if task.id.client_id != self._named:
                self._named, self._own = task.id.client_id, own_part(task.id.client_id)
            messages = self._run.task_messages(task, self._held, self._own)
            self._sent = task.id
            if self._held is not None and coordinator.told is not None:
                self._held = coordinator.told.after
            return messages
        return [_HEARTBEAT] if self._silent else []
