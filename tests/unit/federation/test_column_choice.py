"""The general columns that a job gets for its model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.errors import BudgetSpent, InvalidJob, InvalidTask, OutputWithheld
from fedbbpt.federation.column_choice import with_columns
from fedbbpt.interfaces import Ptm
from fedbbpt.job.config import Job
from fedbbpt.job.settings import task_spec
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.tasks.general_columns import GENERAL_PHRASES, GENERAL_WORDS
from fedbbpt.types import ModelCard, Output, TaskSpec
from tests.checkpoints import WORDS
from tests.tenants import local_ptm, ptm_of

Checkpoint = Callable[[str], Path]

KNOWN = tuple(word for word in GENERAL_WORDS if word in WORDS.split())
"""The general words that the tiny checkpoints have as single tokens."""


class Described(Fake):
    """The fake model with a card of its own."""

    def __init__(self, **changes: Any) -> None:
        super().__init__()
        self.changes = changes

    def describe(self) -> ModelCard:
        return replace(super().describe(), **self.changes)


class Foreign(Fake):
    """A model that can score none of the general texts."""

    def check(self, task: TaskSpec) -> None:
        super().check(task)
        if set(task.classes) & set(GENERAL_PHRASES):
            raise InvalidTask("an unknown word", where="classes")


class Silent(LocalPtm):
    """A service that does not tell numbers of label tokens."""

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        super().label_tokens(task)
        return ()


def job(*classes: str, columns: Any = "general", **task: Any) -> Job:
    labels = [f"label {index}" for index in range(len(classes))]
    return Job.model_validate({"task": {"labels": labels, "classes": classes, "columns": columns, **task}})


def chosen(ptm: Ptm, *classes: str, **task: Any) -> tuple[str, ...]:
    columns = with_columns(job(*classes, **task), ptm).columns()
    ptm.register_task(task_spec(with_columns(job(*classes, **task), ptm)))
    return columns


def test_models_that_compare_texts_get_the_phrases_that_are_no_class() -> None:
    found = chosen(local_ptm(Fake()), "bills", "A Person")
    assert found == tuple(phrase for phrase in GENERAL_PHRASES if phrase != "a person")
    assert chosen(local_ptm(Described(family="clip")), "bills", "doctors") == GENERAL_PHRASES


@pytest.mark.parametrize(
    ("name", "template"), [("bert-mlm", "{text} it was {mask} ."), ("llama", "{text} it was {mask}")]
)
def test_language_models_get_the_words_that_are_one_token(checkpoint: Checkpoint, name: str, template: str) -> None:
    pytest.importorskip("transformers")
    ptm = local_ptm(load(str(checkpoint(name)), threads=1))
    assert chosen(ptm, "fine", "dull", template=template) == KNOWN
    assert chosen(ptm, "fine", "good", template=template) == tuple(word for word in KNOWN if word != "good")


def test_encoder_decoders_get_the_words_that_are_one_token_of_an_answer(checkpoint: Checkpoint) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint("t5"))
    known = [word for word in GENERAL_WORDS if len(tokenizer(word, add_special_tokens=False)["input_ids"]) == 1]
    ptm = local_ptm(load(str(checkpoint("t5")), threads=1))
    assert chosen(ptm, "fine", "dull", template="{text}") == tuple(known) and 0 < len(known) < len(GENERAL_WORDS)


def test_class_text_of_several_tokens_does_not_change_the_choice(checkpoint: Checkpoint) -> None:
    """Kills: a choice by the number of all tokens of a task."""
    pytest.importorskip("transformers")
    ptm = local_ptm(load(str(checkpoint("llama")), threads=1))
    assert chosen(ptm, "very fine film", "dull", template="{text} it was {mask}") == KNOWN


def test_words_are_kept_if_the_service_does_not_tell_their_tokens(checkpoint: Checkpoint) -> None:
    pytest.importorskip("transformers")
    engine = Engine(load(str(checkpoint("llama")), threads=1), lambda: 0.0)
    ptm = Silent(engine, Tenant(name="tenant", label_tokens="all"))
    assert chosen(ptm, "fine", "dull", template="{text} it was {mask}") == GENERAL_WORDS


def test_classifier_gets_its_other_labels() -> None:
    ptm = local_ptm(Described(labels=("cat", "dog", "bird", "fish"), family="image-classifier"))
    assert chosen(ptm, "dog", "fish") == ("cat", "bird")
    assert chosen(ptm, "fish", "bird", "dog", "cat") == ()


def test_listed_columns_and_jobs_without_a_readout_stay_as_they_are() -> None:
    ptm = local_ptm(Described(family="unheard-of"))
    listed = job("bills", "doctors", columns=("money", "health"))
    plain = job("bills", "doctors", columns=())
    assert with_columns(listed, ptm) == listed and with_columns(plain, ptm) == plain


def test_models_without_a_list_are_refused_in_words() -> None:
    with pytest.raises(InvalidJob, match=r"family 'unheard-of', .* no list; a list of texts in task\.columns"):
        chosen(local_ptm(Described(family="unheard-of")), "bills", "doctors")
    many = tuple(f"label {index}" for index in range(1001))
    with pytest.raises(InvalidJob, match=r"a model with 1001 labels; a list of texts in task\.columns, at most 1000"):
        chosen(local_ptm(Described(labels=many)), "label 0", "label 1")


def test_model_that_scores_no_general_text_is_refused_in_words() -> None:
    with pytest.raises(InvalidJob, match="scores none of the general texts as one token"):
        chosen(local_ptm(Foreign()), "bills", "doctors")


def test_fault_of_a_class_text_is_not_taken_for_one_of_the_columns(checkpoint: Checkpoint) -> None:
    pytest.importorskip("transformers")
    ptm = local_ptm(load(str(checkpoint("bert-mlm")), threads=1))
    with pytest.raises(InvalidTask, match="label word 'unfathomable'"):
        chosen(ptm, "fine", "unfathomable", template="{text} it was {mask} .")


@pytest.mark.parametrize("output", [Output.LABEL_ARGMAX, Output.LOSS_ONLY])
@pytest.mark.parametrize("columns", ["general", ("money",)])
def test_readout_of_a_model_without_scores_is_refused(output: Output, columns: Any) -> None:
    with pytest.raises(OutputWithheld, match="not the scores that a readout needs"):
        with_columns(job("bills", "doctors", columns=columns), ptm_of(Fake(), output=output))


def test_budget_that_is_too_small_says_what_the_columns_need() -> None:
    ptm = LocalPtm(Engine(Fake(), lambda: 0.0), Tenant(name="clinic", label_tokens=40))
    what = f"{len(GENERAL_PHRASES)} new label tokens where 38 of 40 are left, .* label_tokens of the tenant 'clinic'"
    with pytest.raises(BudgetSpent, match=what):
        chosen(ptm, "bills", "doctors")
