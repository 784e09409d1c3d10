"""Splits a tuned z into the parts that other programs need: the prompt alone, and a linear map of scores."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedbbpt.federation.prompt_file import PromptCard
from fedbbpt.prompts.latent import OFFSET_SCALE, LatentSpace
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.prompts.readout import InnerSpace, ReadoutSpace


@dataclass(frozen=True, slots=True)
class Tuned:
    """A tuned z in parts. The scores of the classes are weights @ s + bias.

    s `[C]` are the scores of the V columns under each view, views first, and then under the prompt, if it is used.
    """

    card: PromptCard
    whole: npt.NDArray[np.float32]
    """z `[n]` itself."""
    space: InnerSpace
    """The space of the prompt alone."""
    z: npt.NDArray[np.float32]
    """The entries of the prompt alone, `[dim]` of `space`."""
    views: tuple[str, ...]
    """Text prompts that stay the same; "" is no prompt."""
    prompted: bool
    """Whether scores under the prompt are used."""
    weights: npt.NDArray[np.float32]
    """`[K, C]`"""
    bias: npt.NDArray[np.float32]
    """`[K]`"""


def split(z: npt.NDArray[np.float32], card: PromptCard) -> Tuned:
    """Returns the parts of a tuned z `[n]`."""
    classes = len(card.labels)
    space = card.space
    if isinstance(space, ReadoutSpace):
        readout = space.readouts(z[None])[0].astype(np.float32)
        prompted = space.uses_prompt(z[None])
        used = (len(space.views) + prompted) * space.columns
        weights = readout[:, :used] + np.eye(classes, used, dtype=np.float32)
        inner = space.prompt
        return Tuned(card, z, inner, z[: inner.dim], space.views, prompted, weights, readout[:, -1])
    bias = np.zeros(classes, np.float32)
    if isinstance(space, LatentSpace) and space.offsets:
        bias = np.float32(OFFSET_SCALE) * z[space.dim - space.offsets :]
    prompted = not isinstance(space, NoPrompt)
    return Tuned(card, z, space, z, () if prompted else ("",), prompted, np.eye(classes, dtype=np.float32), bias)
