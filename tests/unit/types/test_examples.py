"""The methods of each form of examples: texts, texts with second texts, or images."""

from dataclasses import replace

import numpy as np
import pytest

from fedbbpt.errors import InvalidExamples, InvalidTask
from fedbbpt.types import ExampleKind, Examples, ExampleSet, LabelledExamples, Perturbation, TaskSpec
from fedbbpt.types.examples import concatenate
from tests.unit.types.test_prompts import CARD

TEXTS = Examples(("a", "b", "c"))
PAIRS = Examples(("a", "b", "c"), ("x", "y", "z"))
IMAGES = Examples(images=np.arange(12, dtype=np.uint8).reshape(3, 1, 2, 2))
each_kind = pytest.mark.parametrize("examples", [TEXTS, PAIRS, IMAGES], ids=["texts", "pairs", "images"])


@each_kind
def test_taking_examples_keeps_their_digests_in_order(examples: Examples) -> None:
    digests = examples.digests()
    assert len(examples) == len(set(digests)) == 3
    assert examples.take(np.array([2, 0])).digests() == [digests[2], digests[0]]


@each_kind
def test_concatenated_parts_are_the_whole(examples: Examples) -> None:
    whole = LabelledExamples(examples, np.arange(3))
    parts = [whole.take(np.array([0])), whole.take(np.array([1, 2]))]
    joined = concatenate(parts)
    assert joined.examples.kind is examples.kind and joined.examples.digests() == examples.digests()
    np.testing.assert_array_equal(joined.labels, whole.labels)


def test_a_card_decides_which_kind_is_taken() -> None:
    IMAGES.check(CARD)
    TEXTS.check(replace(CARD, image_shape=None))
    with pytest.raises(InvalidExamples, match="texts; images, which this model takes"):
        TEXTS.check(CARD)
    with pytest.raises(InvalidExamples, match="images; texts, which this model takes"):
        IMAGES.check(replace(CARD, image_shape=None))
    with pytest.raises(InvalidExamples, match=r"images of \(1, 2, 2\)"):
        IMAGES.check(replace(CARD, image_shape=(3, 2, 2)))
    with pytest.raises(InvalidExamples, match="images, which this model takes"):
        TEXTS.pixels()
    assert (TEXTS.kind, IMAGES.kind) == (ExampleKind.TEXTS, ExampleKind.IMAGES)


def test_a_perturbation_replaces_tokens_only() -> None:
    with pytest.raises(InvalidExamples, match="a perturbation of images"):
        ExampleSet(IMAGES, 0, Perturbation(0.5, 1)).check(CARD)


def test_row_digests_differ_between_preparations() -> None:
    """Kills: a digest that ignores the room for the prompt, the perturbation or the index that it depends on."""
    same = Examples(("a", "a"))
    plain, room = ExampleSet(same, 4).row_digests(), ExampleSet(same, 5).row_digests()
    perturbed = ExampleSet(same, 4, Perturbation(0.5, 1)).row_digests()
    assert plain[0] == plain[1] and perturbed[0] != perturbed[1]
    assert len({plain[0], room[0], perturbed[0]}) == 3


def test_the_id_of_a_task_depends_on_all_of_it() -> None:
    task = TaskSpec("{text}", ("a", "b"))
    others = [TaskSpec("{text} ", ("a", "b")), TaskSpec("{text}", ("b", "a")), TaskSpec("{text}", ("ab", ""))]
    assert len({one.id for one in (task, *others)}) == 4 and len(task.id) == 32
    with pytest.raises(InvalidTask, match="1001 classes"):
        TaskSpec("{text}", ("a",) * 1001).check()
