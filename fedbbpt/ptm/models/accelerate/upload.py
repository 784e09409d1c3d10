"""Numbers on their way to the device that computes."""

import numpy.typing as npt
import torch
from torch import Tensor


def upload(array: npt.ArrayLike, device: torch.device) -> Tensor:
    """A copy there. From pinned memory it takes its place in a GPU's line, where any other would wait until the line is
    empty, and the GPU then for what comes next."""
    found = torch.tensor(array)
    if device.type != "cuda":
        return found.to(device)
    return found.pin_memory().to(device, non_blocking=True)
