"""Copies arrays to the device of a model without making the CPU wait."""

import numpy.typing as npt
import torch
from torch import Tensor


def upload(array: npt.ArrayLike, device: torch.device) -> Tensor:
    """Returns a copy of the array on the device.

    A copy from pinned memory is queued on a GPU like any launch. One from ordinary memory would block until the queue
    is empty, and the GPU would then be idle until the next launch.
    """
    copy = torch.tensor(array)
    if device.type != "cuda":
        return copy.to(device)
    return copy.pin_memory().to(device, non_blocking=True)
