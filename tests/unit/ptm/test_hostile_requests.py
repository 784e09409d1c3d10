"""Requests out of all proportion are rejected before they cost much."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    BudgetSpent,
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    PolicyForbids,
    PromptTooLong,
    StoreFull,
    UnknownTask,
)
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake, FakeRow
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.tenants import accounts
from fedbbpt.ptm.tenants.state import Quotas
from fedbbpt.ptm.tenants.tenant import Tenant
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.types import (
    Examples,
    LatentPrompts,
    Output,
    Projection,
    ProjectionKind,
    Prompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
)
from fedbbpt.v1 import prompt_pb2, tensor_pb2
from fedbbpt.wire.interceptors import status_of
from fedbbpt.wire.messages import ptm_messages
from fedbbpt.wire.tensors import from_message
from tests.tenants import local_ptm, ptm_of

TASK = TaskSpec("{prompt} {text}", ("a number", "a person", "a place"))
EXAMPLES = Examples(("who was it", "how many films"))
PROMPTS = TextPrompts(("which kind", "what"))
PROJECTION = Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, "which")


class Counting(Fake):
    """Counts the jobs that it plans."""

    planned = 0

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        self.planned += 1
        return super().job(task, prompts, rows, wanted)


def register(ptm: LocalPtm, examples: Examples = EXAMPLES) -> str:
    return ptm.register_examples(ptm.register_task(TASK), examples, 4).id


def test_cache_of_a_tenant_is_not_evicted_by_others() -> None:
    """Otherwise a tenant's own bill would reveal how much others ask."""
    engine = Engine(Fake(), time.monotonic, Quotas(cache_bytes=2000))
    a, b = (LocalPtm(engine, Tenant(name=name)) for name in "ab")
    examples_id = register(a)
    a.score(examples_id, PROMPTS)
    b.score(register(b), TextPrompts(tuple(map(str, range(100)))))
    assert a.score(examples_id, PROMPTS).usage.cached_queries == 4


def test_call_beyond_the_budget_is_not_planned() -> None:
    backend = Counting()
    ptm = ptm_of(backend, max_queries=3)
    with pytest.raises(BudgetSpent, match="4 queries where 3 of 3 are left"):
        ptm.score(register(ptm), PROMPTS)
    assert backend.planned == 0


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (LatentPrompts(np.zeros((256, 1), np.float32), replace(PROJECTION, tokens=4000)), "fewer prompts"),
        (TokenPrompts(np.zeros((256, 4000), np.int32)), "fewer prompts"),
        (LatentPrompts(np.zeros((1, 1), np.float32), replace(PROJECTION, scale=1e36)), "scale 1e.36; at most 10000"),
        (LatentPrompts(np.zeros((1, 1), np.float32), replace(PROJECTION, scale=-np.inf)), "scale -inf"),
        (LatentPrompts(np.zeros((1, 1), np.float32), replace(PROJECTION, scale=np.nan)), "scale nan"),
    ],
    ids=["latent", "tokens", "scale", "-inf", "nan"],
)
def test_prompts_that_would_grow_too_large_are_rejected(prompts: Prompts, message: str) -> None:
    large = replace(Fake().describe(), max_tokens=4096, embedding_width=4096)
    with pytest.raises(InvalidTensor, match=message):
        prompts.check(large)


def test_too_long_text_is_rejected_before_it_becomes_vectors(checkpoint: Callable[[str], Path]) -> None:
    for backend in (Fake(), load(str(checkpoint("bert-encoder")), threads=1)):
        ptm, most = local_ptm(backend), backend.describe().max_tokens
        examples_id = register(ptm)
        with pytest.raises(PromptTooLong, match=f"{most + 1} prompt tokens"):
            ptm.score(examples_id, TextPrompts(("." * 100 * most,)))


def test_long_template_with_many_examples_is_rejected() -> None:
    ptm = local_ptm(Fake())
    task_id = ptm.register_task(TaskSpec("{text} " + "a" * 90_000, TASK.classes))
    with pytest.raises(InvalidExamples, match="1000 examples in a template of 90007 characters"):
        ptm.register_examples(task_id, Examples(("who",) * 1000), 4)


def test_continued_label_words_are_limited(checkpoint: Callable[[str], Path]) -> None:
    words = tuple(f"{'who ' * 15}{n}" for n in range(80))
    with pytest.raises(InvalidTask, match="at most 1024"):
        load(str(checkpoint("gpt2")), threads=1).check(TaskSpec("{prompt} {text} {mask}", words))


def test_label_tokens_without_a_budget_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_LABEL_TOKENS", 4)
    ptm = local_ptm(Fake())
    ptm.register_task(TASK)
    with pytest.raises(BudgetSpent, match="2 new label tokens where 1 of 4 are left"):
        ptm.register_task(TaskSpec("{text}", ("x", "y")))


def test_parts_of_a_message_are_counted_before_they_are_read() -> None:
    paired = [pb.Example(text="who", text_pair="it")] + [pb.Example()] * 10_000
    with pytest.raises(InvalidExamples, match="10001 examples"):
        ptm_messages.example_set(pb.RegisterExamplesRequest(examples=pb.ExampleSet(examples=paired)))
    with pytest.raises(InvalidTask, match="1001 classes"):
        ptm_messages.task(pb.RegisterTaskRequest(task=pb.Task(classes=[""] * 1001)))
    with pytest.raises(InvalidTensor, match="257 prompts"):
        ptm_messages.prompts(pb.ScoreRequest(text=prompt_pb2.TextPrompts(texts=[""] * 257)))
    with pytest.raises(InvalidTensor) as raised:
        from_message(tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_INT8, shape=[1] * 100_000), where="z")
    assert len(str(raised.value)) < 200


def test_released_examples_take_no_bytes() -> None:
    ptm = local_ptm(Fake())
    handles = [register(ptm, Examples(texts)) for texts in (("who",), ("who", "how"), ("who",))]
    assert ptm.engine.kept_bytes > 0
    for handle in handles:
        ptm.release(handle)
    assert ptm.engine.kept_bytes == 0


# Losses of single inputs


def loss_only(**agreed: object) -> LocalPtm:
    return ptm_of(Fake(), output=Output.LOSS_ONLY, **agreed)


def register_labelled(
    ptm: LocalPtm, texts: Sequence[str], labels: Sequence[int], task: TaskSpec = TASK, room: int = 4
) -> None:
    ptm.register_examples(ptm.register_task(task), Examples(tuple(texts)), room, labels=np.array(labels))


def test_texts_that_the_model_reads_alike_are_one_input() -> None:
    ptm = loss_only()
    for texts, room in (
        (["who was it" + " " * i for i in range(8)], 4),
        (
            [
                "who was it",
                "Who was it",
                "WHO was it",
                "who Was it",
                "who was It",
                "who WAS it",
                "WHO WAS IT",
                "who  was it",
            ],
            4,
        ),
        ([f"who was it {i}" for i in range(8)], 509),
    ):
        with pytest.raises(PolicyForbids, match="1 different"):
            register_labelled(ptm, texts, [0] * 8, room=room)


def test_label_is_the_same_in_any_spelling_and_task() -> None:
    ptm = loss_only()
    texts = [f"who {i}" for i in range(8)]
    register_labelled(ptm, texts, [0] * 8)
    turned = TaskSpec(TASK.template + " ", TASK.classes[::-1])
    register_labelled(ptm, texts, [2] * 8, turned)
    for task, spelled in ((TASK, ["WHO 0", *texts[1:]]), (turned, texts)):
        with pytest.raises(PolicyForbids, match=r"examples\[0\].label: an input with another label"):
            register_labelled(ptm, spelled, [1] * 8, task)


def test_no_loss_of_a_single_input_follows_by_subtraction() -> None:
    ptm = loss_only(overlaps=False)
    texts = [f"who {i}" for i in range(9)]
    register_labelled(ptm, texts[:8], [0] * 8)
    with pytest.raises(PolicyForbids, match="1 new inputs"):
        register_labelled(ptm, texts, [0] * 9)


def test_known_is_a_text_whatever_the_task_around_it() -> None:
    """Kills: the loss of one input to nine digits, from 9 inputs of which 8 are known under another template."""
    texts = [f"who is {i}" for i in range(9)]
    shorter = [text.removeprefix("who ") for text in texts]
    others = {
        "{text} {prompt}": texts,
        "{prompt} {text} ?": texts,
        " {text}  {prompt} ": [text.upper() for text in texts],
        "who {text} {prompt}": shorter,
    }
    for template, nine in others.items():
        ptm = loss_only(overlaps=False)
        register_labelled(ptm, texts[:8], [0] * 8)
        task = TaskSpec(template, TASK.classes)
        with pytest.raises(PolicyForbids, match="1 new inputs"):
            register_labelled(ptm, nine, [0] * 9, task)
        with pytest.raises(PolicyForbids, match="another label"):
            register_labelled(ptm, nine[:8], [1] * 8, task)
        with pytest.raises(PolicyForbids, match="another label"):
            register_labelled(ptm, nine[:8], [1] * 8, TaskSpec(template, ("other", "words")))
        register_labelled(ptm, nine[:8], [0] * 8, task)


# Errors and logs


def test_errors_do_not_reveal_paths() -> None:
    status = status_of(StoreFull("the disk is full", where="/srv/secret/audit.jsonl", fix="free some space"))
    assert (
        "secret" not in str(status) and b"free some space" in dict(status.trailing_metadata)["grpc-status-details-bin"]
    )


def test_card_does_not_reveal_the_folder_of_the_model(checkpoint: Callable[[str], Path]) -> None:
    folder = checkpoint("bert-encoder")
    assert ptm_of(load(str(folder), threads=1)).describe().model == folder.name


def test_caller_cannot_forge_lines_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    status_of(UnknownTask(f"no task\nWARNING forged \x1b[31m {'x' * 10_000}", where="task_id"))
    (record,) = caplog.records
    assert record.getMessage().startswith(r"UnknownTask: task_id: no task\nWARNING forged \x1b[31m xxx")
    assert len(record.getMessage()) < 1000
