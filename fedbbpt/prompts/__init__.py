"""From z to what a model is prompted with."""

from typing import TypeAlias

from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace

Space: TypeAlias = LatentSpace | TextSpace | ImageSpace | DeepSpace
"""All that implement interfaces.PromptSpace; told apart by `kind`, on the wire and in files."""
