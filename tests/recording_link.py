"""A client's link to a coordinator that records what it was told."""

from typing import Any

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.types import Arrays
from fedbbpt.v1 import coordinator_pb2 as pb


class RecordingLink(RemoteCoordinator):
    """Records the header of each task."""

    def __init__(self, channel: Any) -> None:
        super().__init__(channel)
        self.headers: list[pb.TaskHeader] = []

    def _broadcast(self, header: pb.TaskHeader, arrays: Arrays) -> Arrays:
        self.headers.append(header)
        return super()._broadcast(header, arrays)

    @property
    def kinds(self) -> str:
        """A character for each task: b for the whole broadcast, s for a state, n for news, = for no news.

        News of several steps are their number, up to 9, and * for more.
        """
        return "".join(map(_kind, self.headers))


def _kind(header: pb.TaskHeader) -> str:
    if not header.HasField("replay"):
        return "b"
    if not header.replay.before:
        return "s"
    if not header.arrays.tensors:
        return "="
    steps = len(header.replay.seeds) + 1
    return "n" if steps == 1 else str(steps) if steps < 10 else "*"
