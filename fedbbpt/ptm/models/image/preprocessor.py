"""Normalises pixels as a checkpoint's preprocessor_config.json states."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.image.image_model import Pixels

FILE = "preprocessor_config.json"

_UNSUPPORTED = ("do_flip_channel_order", "include_top", "rescale_offset")
"""Settings of further steps, which are not supported."""


@dataclass(frozen=True, slots=True)
class Preprocessor:
    """Mean and standard deviation of each colour, for pixels from 0 to 1. Images are not resized."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    shape: tuple[int, int] | None
    """(H, W) of the model's images, if the file states it."""

    def __call__(self, pixels: Pixels) -> Tensor:
        """Returns an image `[1, C, H, W]` as the model takes it."""
        mean, deviation = (torch.tensor(each)[:, None, None] for each in (self.mean, self.deviation))
        return ((torch.from_numpy(pixels) - mean) / deviation)[None]


def read_preprocessor(folder: Path, channels: int = 3) -> Preprocessor:
    """Reads a checkpoint's preprocessor file.

    Raises:
        InvalidInput: There is no such file, or it states other steps than scaling to 0 to 1 and normalising.
    """
    file = folder / FILE
    try:
        settings: Any = json.loads(file.read_text(encoding="utf-8"))
        mean, deviation = _colours(settings, channels)
        shape = shape_of(settings.get("crop_size" if settings.get("do_center_crop") else "size"))
        scale = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0
        if not math.isclose(scale, 1 / 255, rel_tol=1e-6) or any(settings.get(name) for name in _UNSUPPORTED):
            raise ValueError("only scaling to 0 to 1 and normalising are supported")
    except (AttributeError, OSError, ValueError, KeyError, TypeError) as error:
        fix = f"image_mean and image_std of {channels} numbers each, for pixels of 0 to 1"
        what = f"the preprocessing cannot be used: {first_line(error)}"
        raise InvalidInput(what, where=str(file), fix=fix) from None
    return Preprocessor(mean, deviation, shape)


def _colours(settings: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if not settings.get("do_normalize", True):
        return (0.0,) * channels, (1.0,) * channels
    mean, deviation = (tuple(map(float, settings[name])) for name in ("image_mean", "image_std"))
    if len(mean) != channels or len(deviation) != channels or not all(0 < each < math.inf for each in deviation):
        raise ValueError(f"image_mean {mean} and image_std {deviation}")
    return mean, deviation


def shape_of(size: Any) -> tuple[int, int] | None:
    """Returns (H, W) for a size as configurations write it: 224, [224, 224], {"height": ...}, {"shortest_edge": 224}.

    Returns None if there is no size in one of these forms.
    """
    if isinstance(size, dict):
        size = [size.get("height", size.get("shortest_edge")), size.get("width", size.get("shortest_edge"))]
    sides = [size, size] if isinstance(size, int) else size
    if not isinstance(sides, list | tuple) or len(sides) != 2:
        return None
    height, width = sides
    return (height, width) if all(isinstance(side, int) and side > 0 for side in sides) else None
