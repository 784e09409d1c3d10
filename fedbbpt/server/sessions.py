"""Who is here. Lasts as long as the process: after a restart every client joins again."""

import secrets
from collections import Counter

from fedbbpt.errors import SessionEvicted, SessionUnknown

MAX_EVICTED = 10_000
"""Remembered; older ones are unknown."""


class Sessions:
    """One session a client: the newest is the valid one, the ones before are evicted.

    Tokens come from the operating system; no result depends on them.
    """

    def __init__(self) -> None:
        self._clients: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._evicted: dict[str, None] = {}  # in order
        self._streams: Counter[str] = Counter()

    def open(self, client_id: str) -> str:
        before = self._tokens.get(client_id)
        if before is not None:
            self._evicted[before] = None
            if len(self._evicted) > MAX_EVICTED:
                del self._evicted[next(iter(self._evicted))]
            del self._clients[before]
        token = secrets.token_urlsafe()
        self._clients[token], self._tokens[client_id] = client_id, token
        return token

    def client(self, token: str) -> str:
        """Whose session it is. Raises SessionEvicted, SessionUnknown."""
        if token in self._clients:
            return self._clients[token]
        if token in self._evicted:
            raise SessionEvicted("a newer session of this client took over", where="session")
        raise SessionUnknown("no such session", where="session", fix="join again")

    def close(self, token: str) -> None:
        client_id = self._clients.pop(token)
        del self._tokens[client_id]

    def connected(self, token: str) -> None:
        """A stream of the session begins."""
        self._streams[token] += 1

    def disconnected(self, token: str) -> None:
        self._streams[token] -= 1
        if not self._streams[token]:
            del self._streams[token]

    def live(self, client_id: str) -> bool:
        """Whether the client's valid session holds a stream open."""
        return self._streams[self._tokens.get(client_id, "")] > 0
