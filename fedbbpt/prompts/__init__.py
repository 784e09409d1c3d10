"""Prompt spaces: how a vector z becomes a prompt."""

from dataclasses import fields
from typing import TypeAlias

from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import SpaceSettings

Space: TypeAlias = LatentSpace | TextSpace | ImageSpace | DeepSpace
"""Every implementation of `interfaces.PromptSpace`; `kind` tells them apart, in messages and in files."""

_SPACES: dict[str, type[Space]] = {
    "latent": LatentSpace,
    "text": TextSpace,
    "image": ImageSpace,
    "deep": DeepSpace,
}


def space_of(settings: SpaceSettings) -> Space:
    """Returns the space that the settings describe."""
    return _SPACES[settings.kind](**{field.name: getattr(settings, field.name) for field in fields(settings)})
