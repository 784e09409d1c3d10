"""Converts the settings of prompt spaces between `fedbbpt.types` and the messages of method.proto."""

from typing import assert_never

from fedbbpt.errors import InvalidRequest
from fedbbpt.types import (
    DeepSpaceSettings,
    ImageSpaceSettings,
    LatentSpaceSettings,
    SpaceSettings,
    TextSpaceSettings,
)
from fedbbpt.v1 import method_pb2 as pb
from fedbbpt.wire.messages.prompt_messages import projection, projection_message


def write_space(task: pb.TaskSettings, space: SpaceSettings) -> None:
    """Writes the settings of a space into the message of its task."""
    match space:
        case LatentSpaceSettings(dim, latent, offsets):
            message = pb.LatentSpace(dim=dim, projection=projection_message(latent), offsets=offsets)
            task.latent.CopyFrom(message)
        case TextSpaceSettings(dim, candidates, prompt_tokens):
            task.text.CopyFrom(pb.TextSpace(dim=dim, candidates=candidates, prompt_tokens=prompt_tokens))
        case ImageSpaceSettings(image, pooled, grid, widths, strength, seed):
            decoder = pb.ImageSpace(image=image, pooled=pooled, grid=grid, widths=widths, strength=strength, seed=seed)
            task.image.CopyFrom(decoder)
        case DeepSpaceSettings(layers, heads, width, tokens, seed, std):
            prefix = pb.DeepSpace(layers=layers, heads=heads, width=width, tokens=tokens, seed=seed, std=std)
            task.deep.CopyFrom(prefix)
        case _:
            assert_never(space)


def space(task: pb.TaskSettings) -> SpaceSettings:
    """Reads the settings of a task's space. Raises InvalidRequest for a space that is unknown here."""
    match task.WhichOneof("prompt"):
        case "latent":
            latent = projection(task.latent.projection, "task.latent.projection", InvalidRequest)
            return LatentSpaceSettings(task.latent.dim, latent, task.latent.offsets)
        case "text":
            return TextSpaceSettings(task.text.dim, tuple(task.text.candidates), task.text.prompt_tokens)
        case "image":
            return _image_space(task.image)
        case "deep":
            deep = task.deep
            return DeepSpaceSettings(deep.layers, deep.heads, deep.width, deep.tokens, deep.seed, deep.std)
    raise InvalidRequest(
        "a kind of prompt that is unknown here", where="task.prompt", fix="latent, text, image or deep"
    )


def _image_space(message: pb.ImageSpace) -> ImageSpaceSettings:
    if len(message.image) != 3:
        raise InvalidRequest(f"{len(message.image)} numbers", where="task.image.image", fix="C, H and W")
    channels, height, width = message.image
    return ImageSpaceSettings(
        (channels, height, width), message.pooled, message.grid, tuple(message.widths), message.strength, message.seed
    )
