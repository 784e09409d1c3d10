"""The clients that a round does not wait for: those in trouble, and those that missed it or sent a wrong update."""

from collections.abc import Iterable, Iterator, Set


class Absences:
    """What keeps clients from their tasks. A process that starts knows nothing of it, and learns it again."""

    def __init__(self) -> None:
        self._trouble: dict[str, tuple[str, float]] = {}
        """What clients say of their trouble, and since when, in seconds since 1970."""
        self._silent: dict[str, float] = {}
        """Clients that have not answered since they missed a round or sent a wrong update, with the time to ask them
        again."""

    @property
    def excused(self) -> Set[str]:
        """The clients that a round does not wait for."""
        return self._trouble.keys() | self._silent.keys()

    def in_trouble(self, client_id: str) -> bool:
        """Returns whether a client has reported trouble that is not over."""
        return client_id in self._trouble

    def trouble(self, client_id: str) -> tuple[str, float]:
        """Returns what a client says of its trouble, and since when, in seconds since 1970; empty and 0 for none."""
        return self._trouble.get(client_id, ("", 0.0))

    def report(self, client_id: str, text: str, since: float) -> None:
        """Records trouble. `since` is the time now, which counts unless the client was in trouble already."""
        self._trouble[client_id] = text, self._trouble.get(client_id, ("", since))[1]

    def miss(self, clients: Iterable[str], again: float) -> None:
        """Records clients that have not answered, or wrongly, with the time to ask them again."""
        self._silent |= dict.fromkeys(clients, again)

    def back(self, client_id: str) -> bool:
        """Records that a client has answered or joined. Returns whether it was absent."""
        trouble, silent = self._trouble.pop(client_id, None), self._silent.pop(client_id, None)
        return trouble is not None or silent is not None

    def due(self, now: float) -> Iterator[str]:
        """Yields the silent clients that are to be asked again by now, and have reported no trouble."""
        return (each for each, at in self._silent.items() if at <= now and each not in self._trouble)
