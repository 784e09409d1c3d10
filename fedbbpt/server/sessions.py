"""The sessions of the clients. They last as long as the process: after a restart every client joins again."""

import secrets
from collections import Counter

from fedbbpt.errors import SessionEvicted, SessionUnknown
from fedbbpt.limits import MAX_EVICTED_SESSIONS

TOKEN_BYTES = 12
"""96 bits cannot be guessed, and make 16 characters, which travel with every update."""


class SessionTable:
    """One session for each client: the newest is valid, and it evicts the one before.

    Session tokens come from the operating system; no result depends on them.
    """

    def __init__(self) -> None:
        self._clients: dict[str, str] = {}
        self._tokens: dict[str, str] = {}
        self._evicted: dict[str, None] = {}  # a dict, because it keeps the order
        self._streams: Counter[str] = Counter()

    def open(self, client_id: str) -> str:
        """Returns the token of a new session, and evicts the client's session before."""
        before = self._tokens.get(client_id)
        if before is not None:
            self._evict(before)
            del self._clients[before]
        token = secrets.token_urlsafe(TOKEN_BYTES)
        self._clients[token], self._tokens[client_id] = client_id, token
        return token

    def _evict(self, token: str) -> None:
        self._evicted[token] = None
        if len(self._evicted) > MAX_EVICTED_SESSIONS:
            del self._evicted[next(iter(self._evicted))]

    def client(self, token: str) -> str:
        """Returns the id of the client that has this session. Raises SessionEvicted, SessionUnknown."""
        if token in self._clients:
            return self._clients[token]
        if token in self._evicted:
            raise SessionEvicted("a newer session of this client took over", where="session")
        raise SessionUnknown("no such session", where="session", fix="join again")

    def client_or_none(self, token: str) -> str | None:
        """Returns the id of the client that has this session, or None if the session is not valid."""
        return self._clients.get(token)

    def close(self, token: str) -> None:
        """Ends a valid session."""
        client_id = self._clients.pop(token)
        del self._tokens[client_id]

    def close_client(self, client_id: str) -> None:
        """Ends the client's session, if it has one; the session counts as evicted."""
        token = self._tokens.pop(client_id, None)
        if token is not None:
            del self._clients[token]
            self._evict(token)

    def has(self, client_id: str) -> bool:
        """Returns whether the client has a valid session."""
        return client_id in self._tokens

    def connected(self, token: str) -> None:
        """Records that the session opened a stream of tasks."""
        self._streams[token] += 1

    def disconnected(self, token: str) -> None:
        """Records that a stream of the session ended."""
        self._streams[token] -= 1
        if not self._streams[token]:
            del self._streams[token]

    def live(self, client_id: str) -> bool:
        """Returns whether the client's valid session has a stream open."""
        return self._streams[self._tokens.get(client_id, "")] > 0
