"""Converts model cards between `fedbbpt.types` and the messages of ptm.proto."""

from collections.abc import Sequence

from fedbbpt.errors import InvalidRequest
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import ModelCard, Output, Price
from fedbbpt.wire.messages.codes import known, read_code
from fedbbpt.wire.messages.prompt_messages import INJECTIONS, PROMPT_KINDS

OUTPUTS = {
    Output.LOSS_ONLY: pb.OUTPUT_LOSS_ONLY,
    Output.LABEL_ARGMAX: pb.OUTPUT_LABEL_ARGMAX,
    Output.LABEL_LOGPROBS: pb.OUTPUT_LABEL_LOGPROBS,
    Output.LABEL_LOGITS: pb.OUTPUT_LABEL_LOGITS,
}


def describe_response(card: ModelCard) -> pb.DescribeResponse:
    """Returns the message of a card."""
    return pb.DescribeResponse(
        model=card.model,
        revision=card.revision,
        family=card.family,
        prompt_kinds=sorted(PROMPT_KINDS[kind] for kind in card.prompt_kinds),
        injections=sorted(INJECTIONS[injection] for injection in card.injections),
        max_tokens=card.max_tokens,
        max_prompts=card.max_prompts,
        max_examples=card.max_examples,
        max_message_bytes=card.max_message_bytes,
        embedding_width=card.embedding_width,
        score_noise=card.score_noise,
        image_shape=card.image_shape,
        prefix_shape=card.prefix_shape,
        labels=card.labels,
        output=OUTPUTS[card.output],
        min_examples=card.min_examples,
        max_latent=card.max_latent,
        max_vector_norm=card.max_vector_norm,
        max_pairs=card.max_pairs,
        precision=card.precision,
        price=pb.Price(
            currency=card.price.currency,
            micros_per_query=card.price.micros_per_query,
            micros_per_cached_query=card.price.micros_per_cached_query,
            micros_per_thousand_tokens=card.price.micros_per_thousand_tokens,
        ),
    )


def model_card(response: pb.DescribeResponse) -> ModelCard:
    """Reads a card. Raises InvalidRequest for an output that is unknown here, or a shape that is not one."""
    return ModelCard(
        model=response.model,
        revision=response.revision,
        family=response.family,
        prompt_kinds=known(PROMPT_KINDS, response.prompt_kinds),
        injections=known(INJECTIONS, response.injections),
        max_tokens=response.max_tokens,
        max_prompts=response.max_prompts,
        max_examples=response.max_examples,
        max_message_bytes=response.max_message_bytes,
        embedding_width=response.embedding_width,
        score_noise=response.score_noise,
        image_shape=_triple(response.image_shape, "image_shape"),
        prefix_shape=_triple(response.prefix_shape, "prefix_shape"),
        labels=tuple(response.labels),
        output=read_code(OUTPUTS, response.output, "output"),
        min_examples=response.min_examples,
        max_latent=response.max_latent,
        max_vector_norm=response.max_vector_norm,
        max_pairs=response.max_pairs,
        precision=response.precision,
        price=Price(
            response.price.currency,
            response.price.micros_per_query,
            response.price.micros_per_cached_query,
            response.price.micros_per_thousand_tokens,
        ),
    )


def _triple(numbers: Sequence[int], where: str) -> tuple[int, int, int] | None:
    match tuple(numbers):
        case ():
            return None
        case (a, b, c):
            return a, b, c
    raise InvalidRequest(f"{len(numbers)} numbers", where=where, fix="three, or none")
