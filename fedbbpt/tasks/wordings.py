"""Built-in wordings: templates and class texts by kind of task and form of model (`wordings.toml` lists them)."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import product
from typing import Any

from fedbbpt.errors import InvalidInput
from fedbbpt.types import TaskSpec

FORMS: Mapping[str, str] = {
    "dual-encoder": "describe",
    "fake": "describe",
    "masked-lm": "mask",
    "causal-lm": "continue",
    "seq2seq-lm": "answer",
}
"""The form of the templates for each family of models that reads texts and takes class texts."""


def find_form(family: str) -> str:
    """Returns the form of the templates for a family of models. Raises InvalidInput if it takes no class texts."""
    form = "continue" if family.startswith("openai") else FORMS.get(family)
    if form is None:
        what = f"a model of the family {family} has no built-in wordings"
        raise InvalidInput(what, where="model", fix="--own-only with --template and --classes, or another model")
    return form


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of task."""

    templates: Mapping[str, Sequence[str]]
    """The templates for each form of model."""
    words: Sequence[Sequence[str]]
    """Sets of label words, in the order of the classes; one text with {name} stands for all classes."""
    descriptions: Sequence[Sequence[str]]
    """Sets of descriptions, in the same form."""
    classes: Sequence[str] = ()
    """The classes that the kind knows; empty if it takes any labels."""
    aliases: Sequence[Sequence[str]] = ()
    """The names that data give to each of these classes."""

    def order(self, labels: Sequence[str]) -> tuple[int, ...] | None:
        """Returns the index of each label's class; None if a label is unknown, or two have the same class."""
        found = [next((i for i, names in enumerate(self.aliases) if _plain(label) in names), -1) for label in labels]
        return tuple(found) if -1 not in found and len(set(found)) == len(found) else None


@cache
def kinds() -> Mapping[str, Kind]:
    """Returns the built-in kinds of tasks by name."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(
        files("fedbbpt.tasks").joinpath("wordings.toml").read_text(encoding="utf-8")
    )
    return {name: Kind(**table) for name, table in tables.items()}


def guess_kind(labels: Sequence[str], *, pairs: bool) -> str:
    """Returns the kind of a task by its labels, or "topic" if they could be anything.

    Raises:
        InvalidInput: The labels are numbers, or the inputs are pairs whose labels no kind knows.
    """
    fix = f"--kind, one of {', '.join(kinds())}; or --template and --classes"
    if all(label.strip().lstrip("-").isdigit() for label in labels):
        raise InvalidInput(f"the labels {', '.join(labels)} do not say what they mean", where="labels", fix=fix)
    for name, kind in kinds().items():
        if kind.classes and kind.order(labels) is not None and pairs == ("{text_pair}" in kind.templates["mask"][0]):
            return name
    if pairs:
        what = f"no built-in kind of task about two texts has the labels {', '.join(labels)}"
        raise InvalidInput(what, where="labels", fix=fix)
    return "topic"


def built_in(kind_name: str, form: str, labels: Sequence[str], *, pairs: bool) -> tuple[TaskSpec, ...]:
    """Returns the wordings of a kind for one form of model: every template with every set of class texts.

    Args:
        kind_name: One of `kinds`.
        form: One of the values of `FORMS`.
        labels: The labels of the data.
        pairs: Whether the inputs have a second text.

    Raises:
        InvalidInput: The kind is unknown, or does not know the labels.
    """
    kind = kinds().get(kind_name)
    if kind is None:
        raise InvalidInput(f"unknown kind {kind_name!r}", where="--kind", fix=f"one of {', '.join(kinds())}")
    order = kind.order(labels) if kind.classes else tuple(range(len(labels)))
    if order is None:
        what = f"{kind_name} has the classes {', '.join(kind.classes)}, and not {', '.join(labels)}"
        raise InvalidInput(what, where="--kind", fix="another kind; or --template and --classes")
    templates = kind.templates[form]
    if pairs and "{text_pair}" not in templates[0]:
        templates = [template.replace("{text}", "{text} {text_pair}") for template in templates]
    if not pairs and "{text_pair}" in templates[0]:
        raise InvalidInput(f"{kind_name} is about two texts", where="--kind", fix="data with a second text")
    sets = kind.descriptions if form == "describe" else kind.words
    texts = [_class_texts(one, order, labels) for one in sets]
    return tuple(TaskSpec(template, classes) for template, classes in product(templates, texts))


def _class_texts(texts: Sequence[str], order: Sequence[int], labels: Sequence[str]) -> tuple[str, ...]:
    if len(texts) == 1:
        return tuple(texts[0].replace("{name}", _readable(label)) for label in labels)
    return tuple(texts[index] for index in order)


def _plain(label: str) -> str:
    return re.sub(r"[\s-]+", "_", label.strip().lower())


def _readable(label: str) -> str:
    """Returns a label as words: "OfficeHolder" and "office_holder" become "office holder"."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])|[_-]+", " ", label).strip()
    return spaced if spaced.isupper() else spaced.lower()
