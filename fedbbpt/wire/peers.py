"""The other end of a channel: what it is called, which options lead to it, and why it cannot be reached."""

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import grpc

from fedbbpt.errors import FedbbptError, Unavailable
from fedbbpt.wire.status import connection_failed, from_rpc_error


@dataclass(frozen=True, slots=True)
class Peer:
    """A kind of service, as its callers speak of it."""

    name: str
    option: str
    """The option that holds its address; of a channel, what holds it there, such as an argument or a key."""
    prefix: str
    """What the names of the options for its TLS files and token begin with."""
    keepalive_seconds: int
    """Interval between a caller's pings."""


COORDINATOR = Peer("the coordinator", "--coordinator", "--", keepalive_seconds=30)
PTM = Peer("the PTM service", "--ptm", "--ptm-", keepalive_seconds=360)
"""Its interval exceeds 300 s, because the service may be an ordinary gRPC server, which by default closes connections
that are pinged more often than that."""


@dataclass(frozen=True, slots=True)
class Line:
    """What is known about the other end of an open channel."""

    name: str = "the service"
    """For example "the coordinator at hub.example.org:7000"."""
    examine: Callable[[str], FedbbptError | None] = lambda text: None
    """Finds out why no connection is possible, with the help of gRPC's text about it. An Unavailable means that trying
    again helps; None: no cause found."""

    def cause(self, unavailable: type[Unavailable], text: str = "") -> FedbbptError | None:
        """Returns why no connection is possible, of class `unavailable` if trying again helps; None if unknown."""
        cause = self.examine(text)
        return unavailable(cause.what, where=cause.where, fix=cause.fix) if isinstance(cause, Unavailable) else cause

    def problem(self, error: grpc.RpcError, unavailable: type[Unavailable]) -> FedbbptError:
        """Returns the error of a failed call, with its cause if there was no connection.

        Args:
            error: The error that gRPC raised.
            unavailable: The class of errors that no fedbbpt service sent.
        """
        problem = from_rpc_error(error, unavailable)
        if connection_failed(error) and isinstance(problem, unavailable):
            return self.cause(unavailable, problem.what) or problem
        return problem


_LINES: "WeakKeyDictionary[grpc.Channel, Line]" = WeakKeyDictionary()
"""The lines of the channels that `channel.connect` opened, since a channel tells nothing about itself."""


def set_line(channel: grpc.Channel, line: Line) -> None:
    """Remembers what is known about the other end of a channel."""
    _LINES[channel] = line


def line_of(channel: grpc.Channel) -> Line:
    """Returns what is known about the other end of a channel; of a channel from elsewhere, nothing."""
    return _LINES.get(channel, Line())
