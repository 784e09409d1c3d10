"""The settings of prompt spaces, which define the meaning of z. The coordinator sends them to its clients.

`fedbbpt.prompts` turns them into spaces that make prompts of z. method.proto describes each field.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from fedbbpt.types.prompt_kinds import Projection


@dataclass(frozen=True, slots=True)
class LatentSpaceSettings:
    """z is a latent vector, which a projection turns into a soft prompt, and perhaps offsets of the class scores."""

    dim: int
    """The length of z."""
    projection: Projection
    offsets: int = 0
    """K, if the last entries of z are offsets; 0 if all of z becomes the prompt."""
    kind: Literal["latent"] = "latent"


@dataclass(frozen=True, slots=True)
class TextSpaceSettings:
    """z is a sequence of words: each entry is the index of a candidate."""

    dim: int
    """n, the number of words."""
    candidates: tuple[str, ...]
    """N words or short word sequences."""
    prompt_tokens: int
    """Number of tokens that texts must leave free for a prompt."""
    kind: Literal["text"] = "text"


@dataclass(frozen=True, slots=True)
class ImageSpaceSettings:
    """z is added to the initial weights of a decoder that draws a picture on each image."""

    image: tuple[int, int, int]
    """(C, H, W) of the model's images; H = W = grid x 2^(number of widths)."""
    pooled: int
    """The decoder sees each image averaged to `[C, pooled, pooled]`."""
    grid: int
    """The height and width from which the decoder starts."""
    widths: tuple[int, ...]
    """Numbers of channels at the start and after each stage except the last, which makes C."""
    strength: float
    """The factor of the decoder's picture."""
    seed: int
    """The seed of the initial weights."""
    kind: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class DeepSpaceSettings:
    """z is added to an initial prefix of keys and values in every layer, or in the last ones."""

    layers: int
    heads: int
    """Number of heads of keys and values."""
    width: int
    """Width of one head."""
    tokens: int
    """L, the length of the prefix."""
    seed: int
    """The seed of the initial prefix."""
    std: float
    """The standard deviation of the initial prefix."""
    first_layer: int = 0
    """The first layer that z changes; those below it keep the initial prefix."""
    kind: Literal["deep"] = "deep"


@dataclass(frozen=True, slots=True)
class NoPromptSettings:
    """z is empty: inputs have no prompt."""

    room: int = 0
    """Number of tokens that texts leave free all the same."""
    kind: Literal["none"] = "none"


PromptSpaceSettings: TypeAlias = (
    LatentSpaceSettings | TextSpaceSettings | ImageSpaceSettings | DeepSpaceSettings | NoPromptSettings
)
"""The settings of a space whose z is a prompt; `kind` tells them apart."""


@dataclass(frozen=True, slots=True)
class ReadoutSpaceSettings:
    """z is a prompt, followed by a readout: a linear map from the scores of V texts under m + 1 prompts to those of K
    classes."""

    prompt: PromptSpaceSettings
    """The space of the first entries of z."""
    views: tuple[str, ...]
    """m text prompts that stay the same; "" is no prompt."""
    view_tokens: int
    """Number of tokens that texts must leave free for the longest view."""
    classes: int
    """K"""
    columns: int
    """V, at least K: the number of texts that the model scores. The first K are the classes' own."""
    kind: Literal["readout"] = "readout"


SpaceSettings: TypeAlias = PromptSpaceSettings | ReadoutSpaceSettings
"""The settings of any space; `kind` tells them apart."""
