"""What z stands for <-> messages of method.proto. Raises InvalidRequest for what is unknown here."""

from fedbbpt.errors import InvalidRequest
from fedbbpt.interfaces import PromptSpace
from fedbbpt.prompts import Space
from fedbbpt.prompts.deep import DeepSpace
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.prompts.text import TextSpace
from fedbbpt.prompts.visual import ImageSpace
from fedbbpt.v1 import method_pb2 as pb
from fedbbpt.wire.messages.prompt_messages import projection, projection_message


def write_space(task: pb.TaskSettings, space: PromptSpace) -> None:
    match space:
        case LatentSpace(dim, latent, offsets):
            message = pb.LatentSpace(dim=dim, projection=projection_message(latent), offsets=offsets)
            task.latent.CopyFrom(message)
        case TextSpace(dim, candidates, prompt_tokens):
            task.text.CopyFrom(pb.TextSpace(dim=dim, candidates=candidates, prompt_tokens=prompt_tokens))
        case ImageSpace(image, pooled, grid, widths, strength, seed):
            decoder = pb.ImageSpace(image=image, pooled=pooled, grid=grid, widths=widths, strength=strength, seed=seed)
            task.image.CopyFrom(decoder)
        case DeepSpace(layers, heads, width, tokens, seed, std):
            prefix = pb.DeepSpace(layers=layers, heads=heads, width=width, tokens=tokens, seed=seed, std=std)
            task.deep.CopyFrom(prefix)
        case _:
            raise TypeError(f"no message for {type(space)}")


def space(task: pb.TaskSettings) -> Space:
    match task.WhichOneof("prompt"):
        case "latent":
            sent = task.latent
            sent_projection = projection(sent.projection, "task.latent.projection", InvalidRequest)
            return LatentSpace(sent.dim, sent_projection, sent.offsets)
        case "text":
            return TextSpace(task.text.dim, tuple(task.text.candidates), task.text.prompt_tokens)
        case "image":
            return _image_space(task.image)
        case "deep":
            deep = task.deep
            return DeepSpace(deep.layers, deep.heads, deep.width, deep.tokens, deep.seed, deep.std)
    raise InvalidRequest("no prompt that is known here", where="task.prompt", fix="one of latent, text, image, deep")


def _image_space(sent: pb.ImageSpace) -> ImageSpace:
    if len(sent.image) != 3:
        raise InvalidRequest(f"{len(sent.image)} numbers", where="task.image.image", fix="C, H and W")
    image = (sent.image[0], sent.image[1], sent.image[2])
    return ImageSpace(image, sent.pooled, sent.grid, tuple(sent.widths), sent.strength, sent.seed)
