"""The private arrays of simulated clients on disk, so that an interrupted simulation continues with the same bits.

The file's name holds the round that the arrays belong to. It is written before the round is committed, and the one
before it is removed afterwards, so that whichever round the store holds has its file.
"""

from collections.abc import Mapping
from pathlib import Path

from safetensors.numpy import load_file, save

from fedbbpt.host.files import atomic_write
from fedbbpt.types import Arrays

_PATTERN = "private-*.safetensors"


class PrivateFiles:
    """The files `private-ROUND.safetensors` in the folder of a simulation. Without private arrays there is none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _path(self, round: int) -> Path:
        return self._folder / _PATTERN.replace("*", str(round))

    def save(self, round: int, private: Mapping[str, Arrays]) -> None:
        """Writes the arrays that clients keep for a round, by client id, and removes those of rounds before the last.

        Raises StoreError.
        """
        kept = {self._path(round), self._path(round - 1)}
        if private:
            named = {f"{client}/{name}": array for client, own in private.items() for name, array in own.items()}
            atomic_write(self._path(round), save(named))
        for path in self._folder.glob(_PATTERN):
            if path not in kept:
                path.unlink()

    def load(self, round: int) -> Mapping[str, Arrays]:
        """Returns the arrays that clients kept for a round, by client id."""
        path = self._path(round)
        found: dict[str, dict[str, object]] = {}
        for name, array in (load_file(path) if path.exists() else {}).items():
            client, _, own = name.partition("/")
            found.setdefault(client, {})[own] = array
        return found  # type: ignore[return-value]  # safetensors has no types
