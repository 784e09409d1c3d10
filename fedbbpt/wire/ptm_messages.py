"""The black box's nouns <-> messages of ptm.proto.

A function named after a noun reads it from its message; one named after a message writes it. What cannot be read raises
InvalidRequest, or the nearer error that ptm.proto names for its rpc.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

import numpy as np
from google.protobuf.duration_pb2 import Duration

from fedbbpt.errors import InvalidExamples, InvalidRequest, InvalidTensor, UnsupportedPrompt
from fedbbpt.interfaces import ExamplesHandle
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    DeepPrompts,
    Examples,
    ImagePrompts,
    Injection,
    LatentPrompts,
    ModelCard,
    Perturbation,
    Projection,
    ProjectionKind,
    PromptKind,
    Prompts,
    Scored,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Usage,
)
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire import tensors

C = TypeVar("C")
N = TypeVar("N")

_INJECTIONS = {
    Injection.PREFIX: pb.INJECTION_PREFIX,
    Injection.ADD: pb.INJECTION_ADD,
    Injection.CONCAT: pb.INJECTION_CONCAT,
}
_PROMPT_KINDS = {
    PromptKind.LATENT: pb.PROMPT_KIND_LATENT,
    PromptKind.SOFT: pb.PROMPT_KIND_SOFT,
    PromptKind.TOKENS: pb.PROMPT_KIND_TOKENS,
    PromptKind.TEXT: pb.PROMPT_KIND_TEXT,
    PromptKind.IMAGE: pb.PROMPT_KIND_IMAGE,
    PromptKind.DEEP: pb.PROMPT_KIND_DEEP,
}
_PROJECTIONS = {
    ProjectionKind.RADEMACHER: pb.Projection.KIND_RADEMACHER,
    ProjectionKind.NORMAL: pb.Projection.KIND_NORMAL,
}


def _known(table: Mapping[N, C], codes: Sequence[C]) -> frozenset[N]:
    """Those that are known here: a newer service may offer more."""
    return frozenset(noun for noun, code in table.items() if code in codes)


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


# The model and the task


def describe_response(card: ModelCard) -> pb.DescribeResponse:
    return pb.DescribeResponse(
        model=card.model,
        revision=card.revision,
        family=card.family,
        prompt_kinds=sorted(_PROMPT_KINDS[kind] for kind in card.prompt_kinds),
        injections=sorted(_INJECTIONS[injection] for injection in card.injections),
        max_tokens=card.max_tokens,
        max_prompts=card.max_prompts,
        max_examples=card.max_examples,
        max_message_bytes=card.max_message_bytes,
        embedding_width=card.embedding_width,
        score_noise=card.score_noise,
        image_shape=card.image_shape,
        prefix_shape=card.prefix_shape,
        labels=card.labels,
    )


def model_card(response: pb.DescribeResponse) -> ModelCard:
    return ModelCard(
        model=response.model,
        revision=response.revision,
        family=response.family,
        prompt_kinds=_known(_PROMPT_KINDS, response.prompt_kinds),
        injections=_known(_INJECTIONS, response.injections),
        max_tokens=response.max_tokens,
        max_prompts=response.max_prompts,
        max_examples=response.max_examples,
        max_message_bytes=response.max_message_bytes,
        embedding_width=response.embedding_width,
        score_noise=response.score_noise,
        image_shape=_triple(response.image_shape, "image_shape"),
        prefix_shape=_triple(response.prefix_shape, "prefix_shape"),
        labels=tuple(response.labels),
    )


def _triple(numbers: Sequence[int], where: str) -> tuple[int, int, int] | None:
    match tuple(numbers):
        case ():
            return None
        case (a, b, c):
            return a, b, c
    raise InvalidRequest(f"{len(numbers)} numbers", where=where, fix="three, or none")


def register_task_request(task: TaskSpec) -> pb.RegisterTaskRequest:
    return pb.RegisterTaskRequest(template=task.template, classes=task.classes)


def task(request: pb.RegisterTaskRequest) -> TaskSpec:
    return TaskSpec(request.template, tuple(request.classes))


# Examples


def register_examples_requests(
    task_id: str, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None
) -> Iterator[pb.RegisterExamplesRequest]:
    header = pb.RegisterExamplesHeader(task_id=task_id, prompt_tokens=prompt_tokens)
    if perturbation is not None:
        header.perturbation.CopyFrom(pb.Perturbation(rate=perturbation.rate, seed=perturbation.seed))
    yield pb.RegisterExamplesRequest(header=header)
    for image in () if examples.images is None else examples.images:
        yield pb.RegisterExamplesRequest(example=pb.Example(image=tensors.to_message(image)))
    for index, text in enumerate(examples.texts):
        pair = None if examples.pairs is None else examples.pairs[index]
        yield pb.RegisterExamplesRequest(example=pb.Example(text=text, text_pair=pair))


def perturbation(header: pb.RegisterExamplesHeader) -> Perturbation | None:
    if not header.HasField("perturbation"):
        return None
    return Perturbation(header.perturbation.rate, header.perturbation.seed)


def examples(messages: Sequence[pb.Example]) -> Examples:
    """Raises InvalidExamples where some have a second text, or an image, and some have none."""
    if images := [message.image for message in messages if message.HasField("image")]:
        return _images(images, len(messages))
    texts = tuple(message.text for message in messages)
    pairs = tuple(message.text_pair for message in messages if message.HasField("text_pair"))
    if pairs and len(pairs) < len(texts):
        what = f"{len(pairs)} second texts for {len(texts)} examples"
        raise InvalidExamples(what, where="text_pair", fix="one for each example, or none at all")
    return Examples(texts, pairs or None)


def _images(messages: Sequence[tensor_pb2.Tensor], count: int) -> Examples:
    images = [tensors.from_message(image, where=f"examples[{row}].image") for row, image in enumerate(messages)]
    shapes = {(image.shape, image.dtype) for image in images}
    if len(images) < count or len(shapes) > 1 or images[0].ndim != 3 or images[0].dtype != np.uint8:
        what = f"{len(images)} images for {count} examples, of {len(shapes)} kinds"
        raise InvalidExamples(what, where="image", fix="one uint8 [C, H, W] for each example, all of one shape")
    return Examples(images=np.stack(images))


def register_examples_response(handle: ExamplesHandle, time_to_live_seconds: float) -> pb.RegisterExamplesResponse:
    return pb.RegisterExamplesResponse(
        examples_id=handle.id,
        count=handle.count,
        tokens=handle.tokens,
        time_to_live=_duration(time_to_live_seconds),
    )


def examples_handle(response: pb.RegisterExamplesResponse) -> ExamplesHandle:
    return ExamplesHandle(response.examples_id, response.count, response.tokens)


# Prompts and scores


def score_request(examples_id: str, prompts: Prompts) -> pb.ScoreRequest:
    request = pb.ScoreRequest(examples_id=examples_id)
    if isinstance(prompts, LatentPrompts):
        projection = pb.Projection(
            kind=_PROJECTIONS[prompts.projection.kind],
            seed=prompts.projection.seed,
            tokens=prompts.projection.tokens,
            scale=prompts.projection.scale,
            initial_text=prompts.projection.initial_text,
            injection=_INJECTIONS[prompts.projection.injection],
        )
        request.latent.CopyFrom(pb.LatentPrompts(z=tensors.to_message(prompts.z), projection=projection))
    elif isinstance(prompts, SoftPrompts):
        embeddings = tensors.to_message(prompts.embeddings)
        request.soft.CopyFrom(pb.SoftPrompts(embeddings=embeddings, injection=_INJECTIONS[prompts.injection]))
    elif isinstance(prompts, TokenPrompts):
        request.tokens.CopyFrom(pb.TokenPrompts(ids=tensors.to_message(prompts.ids)))
    elif isinstance(prompts, TextPrompts):
        request.text.CopyFrom(pb.TextPrompts(texts=prompts.texts))
    elif isinstance(prompts, ImagePrompts):
        request.image.CopyFrom(pb.ImagePrompts(deltas=tensors.to_message(prompts.deltas)))
    else:
        request.deep.CopyFrom(pb.DeepPrompts(prefixes=tensors.to_message(prompts.prefixes)))
    return request


def prompts(request: pb.ScoreRequest) -> Prompts:
    """Raises InvalidRequest, InvalidTensor, UnsupportedPrompt."""
    kind = request.WhichOneof("prompts")
    if kind == "latent":
        z = tensors.from_message(request.latent.z, where="latent.z")
        return LatentPrompts(z, _projection(request.latent.projection))
    if kind == "soft":
        embeddings = tensors.from_message(request.soft.embeddings, where="soft.embeddings")
        return SoftPrompts(embeddings, _injection(request.soft.injection, "soft.injection"))
    if kind == "tokens":
        return TokenPrompts(tensors.from_message(request.tokens.ids, where="tokens.ids"))
    if kind == "text":
        return TextPrompts(tuple(request.text.texts))
    if kind == "image":
        return ImagePrompts(tensors.from_message(request.image.deltas, where="image.deltas"))
    if kind == "deep":
        return DeepPrompts(tensors.from_message(request.deep.prefixes, where="deep.prefixes"))
    raise InvalidRequest("no prompts", where="prompts", fix="one of latent, soft, tokens, text, image, deep")


def _injection(code: "pb.Injection.ValueType", where: str) -> Injection:
    for injection in _known(_INJECTIONS, [code]):
        return injection
    raise UnsupportedPrompt(f"injection {code}", where=where, fix=f"one of {sorted(_INJECTIONS)}")


def _projection(message: pb.Projection) -> Projection:
    kinds = _known(_PROJECTIONS, [message.kind])
    if not kinds:
        fix = f"one of {sorted(_PROJECTIONS)}"
        raise UnsupportedPrompt(f"projection {message.kind}", where="latent.projection.kind", fix=fix)
    (kind,) = kinds
    injection = _injection(message.injection, "latent.projection.injection")
    return Projection(kind, message.seed, message.tokens, message.scale, message.initial_text, injection)


def score_response(scored: Scored) -> pb.ScoreResponse:
    return pb.ScoreResponse(
        scores=tensors.to_message(scored.scores), revision=scored.revision, usage=usage_message(scored.usage)
    )


def scored(response: pb.ScoreResponse) -> Scored:
    scores = tensors.from_message(response.scores, where="scores")
    if scores.dtype != np.float32 or scores.ndim != 3:
        raise InvalidTensor(f"{scores.dtype} of shape {scores.shape}", where="scores", fix="float32 [P, B, K]")
    return Scored(scores, response.revision, usage(response.usage))


def usage_message(usage: Usage) -> pb.Usage:
    return pb.Usage(queries=usage.queries, tokens=usage.tokens, compute_time=_duration(usage.compute_seconds))


def usage(message: pb.Usage) -> Usage:
    return Usage(message.queries, message.tokens, message.compute_time.ToTimedelta().total_seconds())
