"""Bytes on the wire, as the kernel counts them for the sockets of this process.

The counts include HTTP/2 framing and TLS, but no retransmissions. They need Linux (TCP_INFO); elsewhere they are None.
"""

import ipaddress
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

_TCP_INFO_BYTES = 136
_ACKED_AND_RECEIVED = struct.Struct("=QQ")
_ACKED_AND_RECEIVED_OFFSET = 120  # offset of tcpi_bytes_acked in struct tcp_info
_REST_PER_READING = 50
"""A reading is followed by this many times its duration without another, so counting takes at most 2 % of the time."""

_Address: TypeAlias = tuple[str, int]


def _address_of(peer: str) -> _Address | None:
    """Parses `ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711` (brackets percent-encoded) into address and port."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """Normalises an address: a dual-stack socket shows IPv4 addresses mapped into IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


@dataclass(frozen=True, slots=True)
class _Socket:
    """A connected TCP socket of this process, as the kernel describes it."""

    name: tuple[str, int]
    """The peer, as `getpeername` names it."""
    received: int
    sent: int


def _socket(descriptor: int) -> _Socket | None:
    """Returns what a file descriptor is; None if it is no connected TCP socket."""
    try:
        # The family only says how long an address may be.
        borrowed = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, fileno=descriptor)
    except OSError:
        return None
    try:
        name = borrowed.getpeername()[:2]
        info = borrowed.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        sent, received = _ACKED_AND_RECEIVED.unpack_from(info, _ACKED_AND_RECEIVED_OFFSET)
        return _Socket((name[0], name[1]), received, sent)
    except (OSError, struct.error, IndexError):
        return None
    finally:
        borrowed.detach()  # gRPC closes it


class _Connection:
    """A registered peer's socket, with its last counts."""

    def __init__(self, descriptor: int, found: _Socket) -> None:
        self.descriptor, self.last = descriptor, found

    def read(self) -> bool:
        """Updates the counts. Returns whether the connection is still open."""
        found = _socket(self.descriptor)
        # A count that fell belongs to a new connection with the old one's port.
        if found is None or found.name != self.last.name or found.received < self.last.received:
            return False
        self.last = found
        return True


class TrafficMeter:
    """Counts the bytes from and to the registered peers since this process started.

    It never fails, since no count is worth a run: what cannot be read keeps its last count.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.supported = sys.platform == "linux"
        self._clock = clock
        self._names: set[str] = set()
        self._awaited: set[_Address] = set()
        """Registered peers whose sockets are still to be found."""
        self._open: dict[_Address, _Connection] = {}
        self._closed = (0, 0)
        self._total = (0, 0)
        self._rest_until = 0.0

    def register(self, peer: str) -> None:
        """Counts a caller's connection from now on. `peer` is the peer name that gRPC gives."""
        if peer not in self._names:
            self._names.add(peer)
            address = _address_of(peer)
            if address is not None and address not in self._open:
                self._awaited.add(address)

    def read(self) -> tuple[int, int] | None:
        """Returns (received, sent) over all callers so far, or None if the operating system does not count.

        The counts may be those of a moment ago: a reading of many connections is not repeated at once. A closed
        connection keeps the count of its last reading.
        """
        if not self.supported:
            return None
        begun = self._clock()
        if begun >= self._rest_until:
            self._read()
            ended = self._clock()
            self._rest_until = ended + _REST_PER_READING * (ended - begun)
        return self._total

    def _read(self) -> None:
        closed = [address for address, connection in self._open.items() if not connection.read()]
        for address in closed:
            last = self._open.pop(address).last
            self._closed = (self._closed[0] + last.received, self._closed[1] + last.sent)
        if closed:
            # A later connection may come from the same port, so names are remembered only while they are open.
            self._names.clear()
        if self._awaited:
            self._find_sockets()
        last_counts = [connection.last for connection in self._open.values()]
        self._total = (
            self._closed[0] + sum(last.received for last in last_counts),
            self._closed[1] + sum(last.sent for last in last_counts),
        )

    def _find_sockets(self) -> None:
        known = {connection.descriptor for connection in self._open.values()}
        try:
            descriptors = {int(entry) for entry in os.listdir("/proc/self/fd")} - known
        except OSError:
            return  # all file descriptors are taken: try again at the next reading
        for descriptor in descriptors:
            found = _socket(descriptor)
            if found is not None and (address := (_plain(found.name[0]), found.name[1])) in self._awaited:
                self._open[address] = _Connection(descriptor, found)
        self._awaited.clear()  # the rest has closed meanwhile
