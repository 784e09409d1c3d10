"""Bytes on the wire, as the kernel counts them on this process's own sockets.

HTTP/2 framing and TLS are included, retransmissions are not. Linux only (TCP_INFO); elsewhere the counts are None, and
reports say so.
"""

import ipaddress
import os
import socket
import stat
import struct
import sys

_TCP_INFO_BYTES = 136
_ACKED_AND_RECEIVED = struct.Struct("=QQ")
_ACKED_AND_RECEIVED_OFFSET = 120  # of tcpi_bytes_acked in struct tcp_info


def _peer_key(peer: str) -> tuple[str, int] | None:
    """`ipv4:127.0.0.1:4711` or `ipv6:[::1]:4711` (brackets percent-encoded) as address and port."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = rest.replace("%5B", "[").replace("%5D", "]").rpartition(":")
    return _plain(host.strip("[]")), int(port)


def _plain(host: str) -> str:
    """One spelling for an address that a dual-stack socket shows as IPv4 in IPv6."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _sockets() -> dict[tuple[str, int], tuple[int, int]]:
    """(received, sent) by peer, of all connected TCP sockets of this process."""
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            # Asked first: where `socket` raises, nobody closes the duplicate.
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
    """Bytes from and to the peers that called, since this process started."""

    def __init__(self) -> None:
        self._peers: set[tuple[str, int]] = set()
        self._seen: dict[tuple[str, int], tuple[int, int]] = {}
        self._closed = (0, 0)
        self.supported = sys.platform == "linux"

    def register(self, peer: str) -> None:
        """Takes note of a caller, by gRPC's name for it."""
        key = _peer_key(peer)
        if key is not None:
            self._peers.add(key)

    def read(self) -> tuple[int, int] | None:
        """(received, sent) over all callers so far; None where the operating system does not count.

        A connection that has closed keeps the count of its last reading.
        """
        if not self.supported:
            return None
        now = _sockets()
        for peer, (received, sent) in list(self._seen.items()):
            # A connection whose count fell is a new one that got the old one's port.
            if peer not in now or now[peer][0] < received:
                self._closed = (self._closed[0] + received, self._closed[1] + sent)
                del self._seen[peer]
        self._peers &= now.keys()
        self._seen.update({peer: now[peer] for peer in self._peers})
        return (
            self._closed[0] + sum(received for received, _ in self._seen.values()),
            self._closed[1] + sum(sent for _, sent in self._seen.values()),
        )
