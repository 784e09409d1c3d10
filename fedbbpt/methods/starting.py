"""Searches that begin at a prompt that another run has found, in place of the prompt 0."""

from typing import Any

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidInput
from fedbbpt.interfaces import ServerHalf, StartsAnywhere


def started(half: ServerHalf[Any], name: str, state: Any, z: npt.NDArray[np.float32]) -> Any:
    """Returns a method's first state at z `[n]`. Raises InvalidInput if the method `name` cannot begin there."""
    if not isinstance(half, StartsAnywhere):
        what, fix = f"{name} cannot begin at a given prompt", "a method that searches z itself, such as fed-cma"
        raise InvalidInput(what, where="start", fix=fix)
    found = half.started(state, z)
    if not np.array_equal(half.prompt(found), z):
        raise InvalidInput(f"{name} cannot begin at exactly this prompt", where="start", fix="another method")
    return found
