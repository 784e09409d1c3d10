"""Converts tasks and the settings of prompt spaces between `fedbbpt.types` and the messages of method.proto."""

from typing import assert_never

from fedbbpt.errors import InvalidRequest
from fedbbpt.types import (
    DeepSpaceSettings,
    ImageSpaceSettings,
    LatentSpaceSettings,
    NoPromptSettings,
    PromptSpaceSettings,
    ReadoutSpaceSettings,
    SpaceSettings,
    TaskSpec,
    TextSpaceSettings,
)
from fedbbpt.v1 import method_pb2 as pb
from fedbbpt.wire.messages.prompt_messages import projection, projection_message


def write_task(task: TaskSpec, labels: tuple[str, ...], space: SpaceSettings) -> pb.TaskSettings:
    """Writes the task of a run, with the names of its classes, and the settings of the space that it searches."""
    classes = len(labels)
    message = pb.TaskSettings(
        template=task.template, classes=task.classes[:classes], columns=task.classes[classes:], labels=labels
    )
    if isinstance(space, ReadoutSpaceSettings):
        message.views.extend(space.views)
        message.view_tokens = space.view_tokens
        space = space.prompt
    _write_prompt(message, space)
    return message


def _write_prompt(task: pb.TaskSettings, space: PromptSpaceSettings) -> None:
    match space:
        case LatentSpaceSettings(dim, latent, offsets):
            message = pb.LatentSpace(dim=dim, projection=projection_message(latent), offsets=offsets)
            task.latent.CopyFrom(message)
        case TextSpaceSettings(dim, candidates, prompt_tokens):
            task.text.CopyFrom(pb.TextSpace(dim=dim, candidates=candidates, prompt_tokens=prompt_tokens))
        case ImageSpaceSettings(image, pooled, grid, widths, strength, seed):
            decoder = pb.ImageSpace(image=image, pooled=pooled, grid=grid, widths=widths, strength=strength, seed=seed)
            task.image.CopyFrom(decoder)
        case DeepSpaceSettings(layers, heads, width, tokens, seed, std, first):
            prefix = pb.DeepSpace(layers=layers, heads=heads, width=width, tokens=tokens, seed=seed, std=std)
            prefix.first_layer = first
            task.deep.CopyFrom(prefix)
        case NoPromptSettings(room):
            task.none.CopyFrom(pb.NoPrompt(room=room))
        case _:
            assert_never(space)


def task_spec(task: pb.TaskSettings) -> TaskSpec:
    """Reads the template and the texts that the PTM scores."""
    return TaskSpec(task.template, (*task.classes, *task.columns))


def space(task: pb.TaskSettings) -> SpaceSettings:
    """Reads the settings of a task's space. Raises InvalidRequest for a space that is unknown here."""
    prompt = _prompt_space(task)
    if not task.views:
        return prompt
    classes, columns = len(task.classes), len(task.classes) + len(task.columns)
    return ReadoutSpaceSettings(prompt, tuple(task.views), task.view_tokens, classes, columns)


def _prompt_space(task: pb.TaskSettings) -> PromptSpaceSettings:
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
            return DeepSpaceSettings(
                deep.layers, deep.heads, deep.width, deep.tokens, deep.seed, deep.std, deep.first_layer
            )
        case "none":
            return NoPromptSettings(task.none.room)
    raise InvalidRequest(
        "a kind of prompt that is unknown here", where="task.prompt", fix="latent, text, image, deep or none"
    )


def _image_space(message: pb.ImageSpace) -> ImageSpaceSettings:
    if len(message.image) != 3:
        raise InvalidRequest(f"{len(message.image)} numbers", where="task.image.image", fix="C, H and W")
    channels, height, width = message.image
    return ImageSpaceSettings(
        (channels, height, width), message.pooled, message.grid, tuple(message.widths), message.strength, message.seed
    )
