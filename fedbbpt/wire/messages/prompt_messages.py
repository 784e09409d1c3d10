"""Converts prompts between `fedbbpt.types` and the messages of prompt.proto, which both services use.

A new kind of prompt needs one entry in `_FORMS`; its field in ScoreRequest has the name of the kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from fedbbpt.errors import FedbbptError, InvalidTensor, UnsupportedPrompt
from fedbbpt.limits import MAX_PROMPTS
from fedbbpt.types import (
    DeepPrompts,
    ImagePrompts,
    Injection,
    LatentPrompts,
    Projection,
    ProjectionKind,
    PromptKind,
    Prompts,
    SoftPrompts,
    TextPrompts,
    TokenPrompts,
)
from fedbbpt.v1 import prompt_pb2 as pb
from fedbbpt.wire import tensors
from fedbbpt.wire.messages.codes import read_code

INJECTIONS = {
    Injection.PREFIX: pb.INJECTION_PREFIX,
    Injection.ADD: pb.INJECTION_ADD,
    Injection.CONCAT: pb.INJECTION_CONCAT,
    Injection.PLACE: pb.INJECTION_PLACE,
    Injection.CLASS: pb.INJECTION_CLASS,
}
PROJECTION_KINDS = {
    ProjectionKind.RADEMACHER: pb.PROJECTION_KIND_RADEMACHER,
    ProjectionKind.NORMAL: pb.PROJECTION_KIND_NORMAL,
}


def projection_message(projection: Projection) -> pb.Projection:
    """Returns the message of a projection."""
    return pb.Projection(
        kind=PROJECTION_KINDS[projection.kind],
        seed=projection.seed,
        tokens=projection.tokens,
        scale=projection.scale,
        initial_text=projection.initial_text,
        injection=INJECTIONS[projection.injection],
    )


def projection(message: pb.Projection, where: str, error: type[FedbbptError] = UnsupportedPrompt) -> Projection:
    """Reads a projection. Raises `error` for a kind or an injection that is unknown here."""
    kind = read_code(PROJECTION_KINDS, message.kind, f"{where}.kind", error)
    injection = read_code(INJECTIONS, message.injection, f"{where}.injection", error)
    return Projection(kind, message.seed, message.tokens, message.scale, message.initial_text, injection)


def _write_latent(prompts: LatentPrompts) -> pb.LatentPrompts:
    return pb.LatentPrompts(z=tensors.to_message(prompts.z), projection=projection_message(prompts.projection))


def _read_latent(message: pb.LatentPrompts) -> LatentPrompts:
    z = tensors.from_message(message.z, where="latent.z")
    return LatentPrompts(z, projection(message.projection, "latent.projection"))


def _write_soft(prompts: SoftPrompts) -> pb.SoftPrompts:
    return pb.SoftPrompts(embeddings=tensors.to_message(prompts.embeddings), injection=INJECTIONS[prompts.injection])


def _read_soft(message: pb.SoftPrompts) -> SoftPrompts:
    embeddings = tensors.from_message(message.embeddings, where="soft.embeddings")
    return SoftPrompts(embeddings, read_code(INJECTIONS, message.injection, "soft.injection", UnsupportedPrompt))


def _write_tokens(prompts: TokenPrompts) -> pb.TokenPrompts:
    return pb.TokenPrompts(ids=tensors.to_message(prompts.ids))


def _read_tokens(message: pb.TokenPrompts) -> TokenPrompts:
    return TokenPrompts(tensors.from_message(message.ids, where="tokens.ids"))


def _write_text(prompts: TextPrompts) -> pb.TextPrompts:
    return pb.TextPrompts(texts=prompts.texts)


def _read_text(message: pb.TextPrompts) -> TextPrompts:
    if len(message.texts) > MAX_PROMPTS:  # a message can hold millions of empty texts: count them before reading
        raise InvalidTensor(f"{len(message.texts)} prompts", where="prompts", fix=f"at most {MAX_PROMPTS}")
    return TextPrompts(tuple(message.texts))


def _write_image(prompts: ImagePrompts) -> pb.ImagePrompts:
    return pb.ImagePrompts(deltas=tensors.to_message(prompts.deltas))


def _read_image(message: pb.ImagePrompts) -> ImagePrompts:
    return ImagePrompts(tensors.from_message(message.deltas, where="image.deltas"))


def _write_deep(prompts: DeepPrompts) -> pb.DeepPrompts:
    return pb.DeepPrompts(prefixes=tensors.to_message(prompts.prefixes))


def _read_deep(message: pb.DeepPrompts) -> DeepPrompts:
    return DeepPrompts(tensors.from_message(message.prefixes, where="deep.prefixes"))


@dataclass(frozen=True, slots=True)
class _Form:
    """A kind of prompt on the wire."""

    code: "pb.PromptKind.ValueType"
    write: Callable[[Any], Message]
    read: Callable[[Any], Prompts]


_FORMS: Mapping[PromptKind, _Form] = {
    PromptKind.LATENT: _Form(pb.PROMPT_KIND_LATENT, _write_latent, _read_latent),
    PromptKind.SOFT: _Form(pb.PROMPT_KIND_SOFT, _write_soft, _read_soft),
    PromptKind.TOKENS: _Form(pb.PROMPT_KIND_TOKENS, _write_tokens, _read_tokens),
    PromptKind.TEXT: _Form(pb.PROMPT_KIND_TEXT, _write_text, _read_text),
    PromptKind.IMAGE: _Form(pb.PROMPT_KIND_IMAGE, _write_image, _read_image),
    PromptKind.DEEP: _Form(pb.PROMPT_KIND_DEEP, _write_deep, _read_deep),
}
PROMPT_KINDS = {kind: form.code for kind, form in _FORMS.items()}


def prompts_message(prompts: Prompts) -> tuple[str, Message]:
    """Returns the name of the prompts' field in ScoreRequest, and their message."""
    return prompts.kind.value, _FORMS[prompts.kind].write(prompts)


def prompts(field: str, message: Message) -> Prompts:
    """Reads the prompts in the field `field` of a ScoreRequest. Raises InvalidTensor, UnsupportedPrompt."""
    return _FORMS[PromptKind(field)].read(message)
