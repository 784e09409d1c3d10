"""What a client keeps on disk: its key, the update that may not have arrived, and what its method keeps privately.

A client that dies after its search and before the receipt submits the same bytes when it comes back, without asking the
PTM again.
"""

import json
import os
import secrets
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fedbbpt.types import Arrays, Phase, TaskId, Update

_KEY_BYTES = 16
_PRIVATE = "private/"


class Keepsake:
    """A folder that belongs to one client of one run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._update, self._key = folder / "update.safetensors", folder / "client.key"

    def client_key(self) -> str:
        """Random, made at the first call, readable by the owner alone."""
        if not self._key.exists():
            _write(self._key, secrets.token_hex(_KEY_BYTES).encode())
        return self._key.read_text()

    def save(self, task_id: TaskId, update: Update, private: Arrays) -> None:
        """Durable when it returns; replaces the update before and what was private then."""
        about = {
            "run_id": task_id.run_id,
            "round": task_id.round,
            "client_id": task_id.client_id,
            "phase": task_id.phase,
            "weight": update.weight,
            "metrics": dict(update.metrics),
            "names": list(update.arrays),
        }
        arrays = {**update.arrays, **{_PRIVATE + name: array for name, array in private.items()}}
        _write(self._update, save(arrays, metadata={"update": json.dumps(about)}))

    def load(self, task_id: TaskId) -> Update | None:
        """The update that was saved for this task, bit for bit; None where there is none."""
        try:
            with safe_open(self._update, framework="numpy") as file:
                about = json.loads(file.metadata()["update"])
                if TaskId(about["run_id"], about["round"], about["client_id"], Phase(about["phase"])) != task_id:
                    return None
                arrays = {name: file.get_tensor(name) for name in about["names"]}
        except (FileNotFoundError, SafetensorError):
            return None
        return Update(arrays, about["weight"], about["metrics"])

    def load_private(self, run_id: str) -> Arrays:
        """What was private after the last answer of this run; empty where there was none."""
        try:
            with safe_open(self._update, framework="numpy") as file:
                if json.loads(file.metadata()["update"])["run_id"] != run_id:
                    return {}
                names = [name for name in file.keys() if name.startswith(_PRIVATE)]
                return {name.removeprefix(_PRIVATE): file.get_tensor(name) for name in names}
        except (FileNotFoundError, SafetensorError):
            return {}


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, whatever happens meanwhile."""
    partial = path.with_suffix(".partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the new name, too
    finally:
        os.close(folder)
