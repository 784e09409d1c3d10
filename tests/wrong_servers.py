"""Servers on loopback that are not a gRPC service: each answers every connection in its own way."""

import socket
import ssl
import struct
import threading
from collections.abc import Callable
from typing import TypeAlias

Behaviour: TypeAlias = Callable[[socket.socket], None]
"""Answers one connection, in a thread of its own."""

_HEADERS, _RST_STREAM, _SETTINGS, _PING = 1, 3, 4, 6
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4


class WrongServer:
    """Listens until it is closed."""

    def __init__(self, behaviour: Behaviour) -> None:
        self._behaviour = behaviour
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                line, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        with line:
            try:
                self._behaviour(line)
            except OSError:
                pass  # the caller hung up

    def close(self) -> None:
        """Stops listening."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def web_server(line: socket.socket) -> None:
    """Speaks HTTP/1."""
    line.recv(4096)
    line.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


def other_protocol(line: socket.socket) -> None:
    """Greets as a server of SSH does."""
    line.sendall(b"SSH-2.0-OpenSSH_9.9\r\n")
    line.recv(4096)


def hang_up(line: socket.socket) -> None:
    """Accepts connections and closes them."""


def tls_web_server(context: ssl.SSLContext) -> Behaviour:
    """Returns a behaviour that speaks HTTP/1 over TLS."""

    def behave(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as secure:
            web_server(secure)

    return behave


class HttpAnswers:
    """Answers each call with an HTTP status, as a proxy does that never asks the service behind it."""

    def __init__(self, status: int) -> None:
        self.calls = 0
        self._status = status

    def __call__(self, line: socket.socket) -> None:
        with line.makefile("rb") as received:
            received.read(24)  # the preface of HTTP/2
            line.sendall(_frame(_SETTINGS, 0, 0))
            while len(head := received.read(9)) == 9:
                size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream, body = int.from_bytes(head[5:], "big"), received.read(size)
                if kind in (_SETTINGS, _PING) and not flags & _ACK:
                    line.sendall(_frame(kind, _ACK, 0, body if kind == _PING else b""))
                if kind == _HEADERS:
                    self.calls += 1
                    # A literal header whose name, :status, has the index 8 in HPACK's static table.
                    status = b"\x08\x03" + str(self._status).encode()
                    line.sendall(_frame(_HEADERS, _END_STREAM | _END_HEADERS, stream, status))
                    line.sendall(_frame(_RST_STREAM, 0, stream, bytes(4)))


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    """Returns a frame of HTTP/2 (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body
