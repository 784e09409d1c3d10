"""The built-in wordings: complete for every kind and form, and in the order of the data's labels."""

from itertools import product

import pytest

from fedbbpt.errors import InvalidInput
from fedbbpt.tasks.wordings import FORMS, built_in, find_form, guess_kind, kinds

ALL_FORMS = sorted(set(FORMS.values()))


def labels_of(kind: str) -> tuple[str, ...]:
    return tuple(kinds()[kind].classes) or ("sports", "world news")


@pytest.mark.parametrize(("kind", "form"), [*product(kinds(), ALL_FORMS)])
def test_every_kind_has_wordings_for_every_form(kind: str, form: str) -> None:
    """Kills: a list of class texts that is too short, a mask where a model fills none, a template without its text."""
    pairs = kind in ("inference", "similarity")
    found = built_in(kind, form, labels_of(kind), pairs=pairs)
    assert len(found) > 1 and len(set(found)) == len(found)
    for wording in found:
        assert len(set(wording.classes)) == len(labels_of(kind))
        assert wording.template.count("{text}") == wording.template.count("{prompt}") == 1
        assert wording.template.count("{text_pair}") == pairs
        assert wording.template.count("{mask}") == (form in ("mask", "continue"))
        assert form != "continue" or wording.template.endswith("{mask}")


def test_class_texts_follow_the_order_of_the_labels() -> None:
    found = built_in("sentiment", "continue", ("Positive", "negative"), pairs=False)
    assert ("good", "bad") in {wording.classes for wording in found}


def test_names_of_classes_become_words() -> None:
    found = built_in("topic", "describe", ("OfficeHolder", "natural_place", "EU"), pairs=False)
    assert found[1].classes == ("a text about office holder", "a text about natural place", "a text about EU")


@pytest.mark.parametrize(
    ("labels", "pairs", "kind"),
    [
        (("neg", "pos"), False, "sentiment"),
        (("ham", "spam"), False, "spam"),
        (("sports", "world"), False, "topic"),
        (("contradiction", "entailment", "neutral"), True, "inference"),
        (("duplicate", "not_duplicate"), True, "similarity"),
    ],
)
def test_labels_that_say_what_they_mean_decide_the_kind(labels: tuple[str, ...], pairs: bool, kind: str) -> None:
    assert guess_kind(labels, pairs=pairs) == kind


@pytest.mark.parametrize(("labels", "pairs"), [(("0", "1"), False), (("x", "y"), True)])
def test_labels_that_do_not_are_refused(labels: tuple[str, ...], pairs: bool) -> None:
    """Kills: numbers that are taken for a sentiment in silence."""
    with pytest.raises(InvalidInput, match="--kind"):
        guess_kind(labels, pairs=pairs)


def test_numbers_have_the_meaning_of_a_kind_that_is_named() -> None:
    assert ("bad", "good") in {wording.classes for wording in built_in("sentiment", "mask", ("0", "1"), pairs=False)}


def test_kinds_and_families_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="unknown kind 'mood'; one of sentiment"):
        built_in("mood", "mask", ("a", "b"), pairs=False)
    with pytest.raises(InvalidInput, match="spam has the classes ham, spam, and not a, b"):
        built_in("spam", "mask", ("a", "b"), pairs=False)
    with pytest.raises(InvalidInput, match="inference is about two texts"):
        built_in("inference", "mask", ("entailment", "neutral"), pairs=False)
    with pytest.raises(InvalidInput, match="family clip has no built-in wordings"):
        find_form("clip")
    assert find_form("openai-chat") == "continue"
