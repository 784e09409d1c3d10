"""Checks the settings of a prompt space, and z, that come from a file or from a peer, before anything is computed."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fedbbpt.errors import InvalidInput
from fedbbpt.limits import (
    MAX_CANDIDATES,
    MAX_CLASSES,
    MAX_IMAGE_ELEMENTS,
    MAX_LATENT,
    MAX_PROJECTION_ELEMENTS,
    MAX_PROMPT_SIDE,
    MAX_SCALE,
    MAX_VIEWS,
)
from fedbbpt.types import (
    DeepSpaceSettings,
    ImageSpaceSettings,
    LatentSpaceSettings,
    NoPromptSettings,
    ReadoutSpaceSettings,
    SpaceSettings,
    TextSpaceSettings,
)


def check_space(space: SpaceSettings, classes: int) -> None:
    """Checks that z has at least one entry, and that prompts can be made of it in bounded memory.

    Args:
        space: The settings.
        classes: K, the number of the task's classes.

    Raises:
        InvalidInput: A number is out of range, or numbers contradict each other.
    """
    match space:
        case LatentSpaceSettings():
            _latent(space, classes)
        case TextSpaceSettings():
            _number("dim", space.dim, 1, MAX_PROMPT_SIDE)
            _number("prompt_tokens", space.prompt_tokens, 0, MAX_PROMPT_SIDE)
            _number("candidates", len(space.candidates), 1, MAX_CANDIDATES)
        case ImageSpaceSettings():
            _image(space)
        case DeepSpaceSettings():
            sides = {name: getattr(space, name) for name in ("layers", "heads", "width", "tokens")}
            for name, value in sides.items():
                _number(name, value, 1, MAX_PROMPT_SIDE)
            _number("first_layer", space.first_layer, 0, space.layers - 1)
            _number("std", space.std, 0, MAX_SCALE)
            _number("seed", space.seed, 0, 2**64 - 1)
            _number("the prefix", 2 * math.prod(sides.values()), 1, MAX_PROJECTION_ELEMENTS)
        case NoPromptSettings():
            _number("room", space.room, 0, MAX_PROMPT_SIDE)
        case ReadoutSpaceSettings():
            check_space(space.prompt, classes)
            _number("classes", space.classes, classes, classes)
            _number("columns", space.columns, classes, MAX_CLASSES)
            _number("views", len(space.views), 0, MAX_VIEWS)
            _number("view_tokens", space.view_tokens, 0, MAX_PROMPT_SIDE)


def _latent(space: LatentSpaceSettings, classes: int) -> None:
    projection = space.projection
    if space.offsets not in (0, classes):
        _number("offsets", space.offsets, classes, classes)
    inner = space.dim - space.offsets
    _number("dim", inner, 0, MAX_PROJECTION_ELEMENTS)
    _number("projection.tokens", projection.tokens, 1, MAX_PROMPT_SIDE)
    _number("projection.scale", projection.scale, -MAX_SCALE, MAX_SCALE)
    _number("projection.seed", projection.seed, 0, 2**64 - 1)
    _number("the projection", inner * projection.tokens, 0, MAX_PROJECTION_ELEMENTS)


def _image(space: ImageSpaceSettings) -> None:
    for name, value in (("pooled", space.pooled), ("grid", space.grid), ("widths", len(space.widths))):
        _number(name, value, 1, MAX_PROMPT_SIDE)
    for name, values in (("image", space.image), ("widths", space.widths)):
        for value in values:
            _number(name, value, 1, MAX_PROMPT_SIDE)
    _number("strength", space.strength, -MAX_SCALE, MAX_SCALE)
    _number("seed", space.seed, 0, 2**64 - 1)
    channels, height, width = space.image
    side = space.grid * 2 ** min(len(space.widths), 30)
    _same("image", (height, width), (side, side))
    _number("image", channels * side * side, 1, MAX_IMAGE_ELEMENTS)
    _number("pooled", space.pooled, 1, side)
    _same("pooled", (side % space.pooled,), (0,))
    _number("widths", max(space.widths) * side * side, 1, MAX_IMAGE_ELEMENTS)
    _number("the trigger", space.widths[0] * space.grid**2 - channels * space.pooled**2, 1, MAX_IMAGE_ELEMENTS)
    for before, after in zip(space.widths, space.widths[1:], strict=False):
        _same("widths", (max(before, after) % before, max(before, after) % after), (0, 0))


def check_z(space: SpaceSettings, z: npt.NDArray[np.float32]) -> None:
    """Checks that a z `[dim]` of a checked space is in range.

    Raises:
        InvalidInput: An entry is out of range, or names no candidate.
    """
    if isinstance(space, ReadoutSpaceSettings):
        if isinstance(space.prompt, TextSpaceSettings):
            check_z(space.prompt, z[: space.prompt.dim])
        return
    if isinstance(space, TextSpaceSettings):
        known = (z >= 0) & (z < len(space.candidates)) & (z == np.floor(z))
        if not known.all():
            bad = z[~known][0]
            what = f"z names candidate {bad:g}, and the space has {len(space.candidates)}"
            raise InvalidInput(what, where="z", fix=f"whole numbers from 0 to {len(space.candidates) - 1}")
    elif len(z) and not np.abs(z).max() <= MAX_LATENT:
        raise InvalidInput(f"z has an entry of {np.abs(z).max():g}", where="z", fix=f"at most {MAX_LATENT:g}")


def _number(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # also true of NaN
        fix = f"from {least:,} to {most:,}" if least < most else f"{least:,}"
        raise InvalidInput(f"the prompt space's {name} is {value:,}", where=f"space.{name}", fix=fix)


def _same(name: str, value: Sequence[int], wanted: Sequence[int]) -> None:
    if tuple(value) != tuple(wanted):
        what = f"the prompt space's {name} does not fit its other numbers"
        raise InvalidInput(what, where=f"space.{name}", fix="the numbers of one space")
