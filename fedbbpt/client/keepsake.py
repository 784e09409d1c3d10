"""The files of a client: its key, its last update, which may not have arrived, and its method's private arrays.

A client that dies between its search and the receipt submits the same bytes after its restart, without any new query.
"""

import json
import secrets
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.host.files import atomic_write
from fedbbpt.types import Arrays, Measurement, Phase, TaskId, Update

_KEY_BYTES = 16
_PRIVATE = "private/"
_OWNER_ONLY = 0o600


class Keepsake:
    """A folder that belongs to one client of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._update, self._key = folder / "update.safetensors", folder / "client.key"

    def client_key(self) -> str:
        """Returns the client's key. The first call draws it and writes it to a file that only this user can read."""
        if not self._key.exists():
            atomic_write(self._key, secrets.token_hex(_KEY_BYTES), mode=_OWNER_ONLY)
        return self._key.read_text()

    def save(self, task_id: TaskId, update: Update, private: Arrays) -> None:
        """Replaces the saved update and the private arrays. Both are on disk when this returns."""
        about = {
            "run_id": task_id.run_id,
            "round": task_id.round,
            "client_id": task_id.client_id,
            "phase": task_id.phase,
            "weight": update.weight,
            "measurement": asdict(update.measurement),
            "finalists": [asdict(measured) for measured in update.finalists],
            "names": list(update.arrays),
        }
        arrays = {**update.arrays, **{_PRIVATE + name: array for name, array in private.items()}}
        atomic_write(self._update, save(arrays, metadata={"update": json.dumps(about)}), mode=_OWNER_ONLY)

    def load(self, task_id: TaskId) -> Update | None:
        """Returns the update that was saved for this task, bit for bit; None if there is none."""
        try:
            with safe_open(self._update, framework="numpy") as file:
                about = json.loads(file.metadata()["update"])
                if TaskId(about["run_id"], about["round"], about["client_id"], Phase(about["phase"])) != task_id:
                    return None
                arrays = {name: file.get_tensor(name) for name in about["names"]}
        except (FileNotFoundError, SafetensorError):
            return None
        finalists = tuple(Measurement(**measured) for measured in about["finalists"])
        return Update(arrays, about["weight"], Measurement(**about["measurement"]), finalists=finalists)

    def load_private(self, run_id: str) -> Arrays:
        """Returns the private arrays after the last answer of this run; empty if there are none."""
        try:
            with safe_open(self._update, framework="numpy") as file:
                if json.loads(file.metadata()["update"])["run_id"] != run_id:
                    return {}
                names = [name for name in file.keys() if name.startswith(_PRIVATE)]
                return {name.removeprefix(_PRIVATE): file.get_tensor(name) for name in names}
        except (FileNotFoundError, SafetensorError):
            return {}
