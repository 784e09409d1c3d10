"""A client's side of an open TakePart: it sends updates and heartbeats, and reads receipts and tasks."""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

from fedbbpt.v1 import coordinator_pb2 as pb

SILENT_HEARTBEATS = 3
"""The number of heartbeat intervals after which a silent stream is cancelled."""
_HEARTBEAT = pb.TakePartRequest(heartbeat=pb.Heartbeat())


class TaskStream:
    """One call of TakePart. It sends a heartbeat in each interval, also while nobody reads."""

    def __init__(self, stub: Any, opening: pb.Opening, heartbeat_seconds: float, receipt_seconds: float) -> None:
        """
        Args:
            stub: the coordinator's stub.
            opening: what the call begins with.
            heartbeat_seconds: the interval of heartbeats, in both directions.
            receipt_seconds: how long an update may wait for its receipt. A connection can be lost in one direction
                alone, and then heartbeats still arrive.
        """
        self._receipt_seconds = receipt_seconds
        self._requests: queue.SimpleQueue[pb.TakePartRequest | None] = queue.SimpleQueue()
        self._requests.put(pb.TakePartRequest(opening=opening))
        self._call: Iterator[pb.TakePartResponse] = stub.TakePart(iter(self._requests.get, None))
        self._silence = SilenceTimer(self._call, heartbeat_seconds, lambda: self._requests.put(_HEARTBEAT))

    def submit(self, header: pb.UpdateHeader) -> None:
        """Sends an update."""
        self._silence.due = time.monotonic() + self._receipt_seconds
        self._requests.put(pb.TakePartRequest(update=header))

    def say(self, request: pb.SecureRequest) -> None:
        """Sends what the client says in secure aggregation."""
        self._requests.put(pb.TakePartRequest(secure=request))

    def read(self) -> pb.TakePartResponse | None:
        """Waits for the next response; None at the end.

        Raises grpc.RpcError, also after a long silence, or if the receipt of an update is overdue.
        """
        with self._silence:
            response = next(self._call, None)
        if response is not None and response.receipt:
            self._silence.due = None
        return response

    def close(self) -> None:
        """Ends the call."""
        self._silence.end()
        self._requests.put(None)
        call: Any = self._call
        call.cancel()


class SilenceTimer:
    """Cancels a call if a `with` block takes longer than SILENT_HEARTBEATS intervals. The blocks wait for messages.

    The transport's own keepalive is not enough: a coordinator that hangs still answers pings.
    """

    def __init__(self, call: Any, heartbeat_seconds: float, beat: Any = lambda: None) -> None:
        """Calls `beat` in each interval, from a thread of its own."""
        self._call, self._heartbeat_seconds, self._beat = call, heartbeat_seconds, beat
        self._over = threading.Event()
        self._since: float | None = None
        """When the block began; None outside of blocks: a caller that works on a task is no silence of the stream."""
        self.due: float | None = None
        """When the call is cancelled whatever else arrives, on `time.monotonic`; None: never."""
        # One thread for the whole stream: it looks again when an interval is over, not at each message.
        threading.Thread(target=self._watch, daemon=True, name="silence").start()

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *problem: object) -> None:
        self._since = None

    def end(self) -> None:
        """Ends the thread."""
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(self._heartbeat_seconds):
            self._beat()
            since, due, now = self._since, self.due, time.monotonic()
            silent = since is not None and now - since >= SILENT_HEARTBEATS * self._heartbeat_seconds
            if silent or (due is not None and now >= due):
                self._call.cancel()
                return
