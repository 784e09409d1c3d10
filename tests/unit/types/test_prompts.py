"""Every kind of prompt counts, selects, digests, measures and checks its own prompts."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import InvalidTensor, UnsupportedPrompt
from fedbbpt.ptm.v1 import ptm_pb2
from fedbbpt.types import (
    DeepPrompts,
    ImagePrompts,
    Injection,
    LatentPrompts,
    ModelCard,
    Projection,
    ProjectionKind,
    PromptKind,
    Prompts,
    SoftPrompts,
    TextPrompts,
    TokenPrompts,
)
from fedbbpt.wire.messages.prompt_messages import PROMPT_KINDS, prompts, prompts_message

CARD = ModelCard(
    model="m",
    revision="r",
    family="f",
    prompt_kinds=frozenset(PromptKind),
    injections=frozenset(Injection),
    max_tokens=20,
    max_prompts=4,
    max_examples=10,
    max_message_bytes=2**20,
    embedding_width=4,
    score_noise=0.0,
    image_shape=(1, 2, 2),
    prefix_shape=(2, 1, 4),
)


def normal(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


KINDS: list[Prompts] = [
    LatentPrompts(normal(3, 5), Projection(ProjectionKind.NORMAL, 1, 2, 1.0, "so")),
    SoftPrompts(normal(3, 2, 4), Injection.ADD),
    TokenPrompts(np.arange(6, dtype=np.int32).reshape(3, 2)),
    TextPrompts(("one", "two", "thrée")),
    ImagePrompts(normal(3, 1, 1, 2, 2)),
    DeepPrompts(normal(3, 2, 2, 1, 2, 4)),
]
each_kind = pytest.mark.parametrize("three", KINDS, ids=lambda three: three.kind)


def test_each_kind_has_a_class_and_a_message() -> None:
    assert [three.kind for three in KINDS] == list(PromptKind) == list(PROMPT_KINDS)


@each_kind
def test_taking_prompts_keeps_their_digests_in_order(three: Prompts) -> None:
    digests = three.digests()
    assert len(three) == len(digests) == 3 and len(set(digests[:, 0])) == 3
    taken = three.take([2, 0, 2])
    assert type(taken) is type(three) and len(taken) == 3
    np.testing.assert_array_equal(taken.digests(), digests[[2, 0, 2]])


@each_kind
def test_a_message_names_the_prompts_kind_and_field(three: Prompts) -> None:
    field, message = prompts_message(three)
    assert field in ptm_pb2.ScoreRequest.DESCRIPTOR.fields_by_name
    assert f"{field}.{message.DESCRIPTOR.fields[0].name}" == three.where
    read = prompts(field, message)
    assert type(read) is type(three)
    np.testing.assert_array_equal(read.digests(), three.digests())


@each_kind
def test_the_size_is_the_growth_of_the_message(three: Prompts) -> None:
    """Kills: a size that counts parts that all prompts share, or characters in place of bytes."""
    six = three.take([0, 1, 2, 0, 1, 2])
    growth = prompts_message(six)[1].ByteSize() - prompts_message(three)[1].ByteSize()
    assert six.size_bytes == 2 * three.size_bytes
    assert three.size_bytes <= growth <= three.size_bytes + 10


@each_kind
def test_a_card_decides_which_prompts_are_taken(three: Prompts) -> None:
    three.check(CARD)
    with pytest.raises(UnsupportedPrompt, match=f"{three.kind} prompts"):
        three.check(replace(CARD, prompt_kinds=CARD.prompt_kinds - {three.kind}))
    with pytest.raises(InvalidTensor, match="6 prompts; 1 to 4"):
        three.take([0, 1, 2, 0, 1, 2]).check(CARD)
    with pytest.raises(InvalidTensor):
        three.take([]).check(CARD)


@each_kind
def test_numbers_that_are_not_finite_are_refused_by_name(three: Prompts) -> None:
    if isinstance(three.values, tuple) or three.values.dtype.kind != "f":
        pytest.skip("has no floating-point numbers")
    broken = three.take([0, 1, 2])
    broken.values[0].flat[0] = np.nan
    with pytest.raises(InvalidTensor, match=f"{three.where}: NaN"):
        broken.check(CARD)


def test_only_pictures_can_differ_from_example_to_example() -> None:
    assert not any(three.per_example for three in KINDS)
    pictures = ImagePrompts(normal(3, 2, 1, 2, 2))
    assert pictures.per_example and pictures.digests().shape == (3, 2)


def test_side_of_a_prompt_is_part_of_its_digest() -> None:
    """Kills: a cached score of a prompt in the inputs that answers for the same vectors in the class texts."""
    z, vectors = np.ones((1, 3), np.float32), np.ones((1, 2, 4), np.float32)
    place = Projection(ProjectionKind.NORMAL, 1, 2, 1.0, "")
    for prefix, joined in (
        (LatentPrompts(z, place), LatentPrompts(z, replace(place, injection=Injection.CLASS))),
        (SoftPrompts(vectors), SoftPrompts(vectors, Injection.CLASS)),
    ):
        assert prefix.digests()[0, 0] != joined.digests()[0, 0]
        assert joined.in_classes and not prefix.in_classes


def test_refusal_of_prompts_in_the_class_texts_says_what_takes_them() -> None:
    card = replace(CARD, injections=frozenset({Injection.PREFIX}), prompt_kinds=frozenset({PromptKind.IMAGE}))
    with pytest.raises(UnsupportedPrompt, match="takes no prompts in the class texts") as refusal:
        SoftPrompts(np.ones((1, 2, 4), np.float32), Injection.CLASS).check(card)
    assert (
        refusal.value.fix
        == 'task.prompt.side = "input", or a dual encoder or CLIP whose provider gives you "all" label_tokens'
    )
