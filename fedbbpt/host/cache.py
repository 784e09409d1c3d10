"""The folder for files that are made once on this machine, and can be made again."""

from pathlib import Path

import platformdirs


def cache_folder(name: str) -> Path:
    """Returns the folder `name` in the user's cache of fedbbpt (`~/.cache/fedbbpt/NAME` on Linux), which it creates.

    Raises:
        OSError: The folder cannot be created.
    """
    folder = platformdirs.user_cache_path("fedbbpt") / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
