"""Prompt spaces: how a vector z becomes a prompt."""

from dataclasses import fields
from typing import TypeAlias

from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import InnerSpace, ReadoutSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.types import PromptSpaceSettings, ReadoutSpaceSettings, SpaceSettings

Space: TypeAlias = InnerSpace | ReadoutSpace
"""Every implementation of `interfaces.PromptSpace`; `kind` tells them apart, in messages and in files."""

_SPACES: dict[str, type[InnerSpace]] = {
    "latent": LatentSpace,
    "text": TextSpace,
    "image": ImageSpace,
    "deep": DeepSpace,
    "none": NoPrompt,
}


def without_readout(space: Space) -> InnerSpace:
    """Returns the space of the prompt alone, which is `space` itself unless that has a readout."""
    return space.prompt if isinstance(space, ReadoutSpace) else space


def space_of(settings: SpaceSettings) -> Space:
    """Returns the space that the settings describe."""
    if isinstance(settings, ReadoutSpaceSettings):
        own = {field.name: getattr(settings, field.name) for field in fields(settings)}
        return ReadoutSpace(**own | {"prompt": _inner(settings.prompt)})
    return _inner(settings)


def _inner(settings: PromptSpaceSettings) -> InnerSpace:
    return _SPACES[settings.kind](**{field.name: getattr(settings, field.name) for field in fields(settings)})
