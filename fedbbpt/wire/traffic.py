"""Bytes on the wire, as the kernel counts them for the sockets of this process.

The counts include HTTP/2 framing and TLS, but no retransmissions. They need Linux (TCP_INFO); elsewhere they are None.
"""

import ipaddress
import os
import socket
import stat
import struct
import sys

_TCP_INFO_BYTES = 136
_ACKED_AND_RECEIVED = struct.Struct("=QQ")
_ACKED_AND_RECEIVED_OFFSET = 120  # offset of tcpi_bytes_acked in struct tcp_info


def _peer_key(peer: str) -> tuple[str, int] | None:
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


def _sockets() -> dict[tuple[str, int], tuple[int, int]]:
    """Returns (received, sent) by peer for all connected TCP sockets of this process."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            # Checked first, because `socket.socket` does not close the duplicate if it raises.
            if not stat.S_ISSOCK(os.stat(int(entry)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(entry))) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                host, port = connection.getpeername()[:2]
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
                sent, received = _ACKED_AND_RECEIVED.unpack_from(info, _ACKED_AND_RECEIVED_OFFSET)
        except (OSError, struct.error):
            continue  # not a socket, not connected, or closed meanwhile
        found[(_plain(host), port)] = (received, sent)
    return found


class TrafficMeter:
    """Counts the bytes from and to the registered peers since this process started."""

    def __init__(self) -> None:
        self._peers: set[tuple[str, int]] = set()
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}
        self._closed = (0, 0)
        self.supported = sys.platform == "linux"

    def register(self, peer: str) -> None:
        """Counts a caller's connection from now on. `peer` is the peer name that gRPC gives."""
        key = _peer_key(peer)
        if key is not None:
            self._peers.add(key)

    def read(self) -> tuple[int, int] | None:
        """Returns (received, sent) over all callers so far, or None if the operating system does not count.

        A closed connection keeps the count of its last reading.
        """
        if not self.supported:
            return None
        now = _sockets()
        for peer, (received, sent) in list(self._seen.items()):
            # A count that fell belongs to a new connection with the old one's port.
            if peer not in now or now[peer][0] < received:
                self._closed = (self._closed[0] + received, self._closed[1] + sent)
                del self._seen[peer]
        self._peers &= now.keys()
        self._seen.update({peer: now[peer] for peer in self._peers})
        return (
            self._closed[0] + sum(received for received, _ in self._seen.values()),
            self._closed[1] + sum(sent for _, sent in self._seen.values()),
        )
