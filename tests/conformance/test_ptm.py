"""Every PTM keeps the laws of `interfaces.Ptm`, in this process and over gRPC.

Most tests are metamorphic: splitting, joining or reordering the pairs of a call changes no score.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedbbpt.errors import (
    FedbbptError,
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    PromptTooLong,
    UnknownExamples,
    UnknownTask,
)
from fedbbpt.interfaces import Ptm
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.state import Quotas
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.types import (
    Examples,
    LatentPrompts,
    Perturbation,
    Projection,
    ProjectionKind,
    Prompts,
    SoftPrompts,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Usage,
)
from fedbbpt.wire.channel import connect

TASK = TaskSpec("{prompt} {text}", ("a number", "a person", "a place"))
TEXTS = ("who wrote it", "where is paris", "how many people", "who wrote this long book", "dull", "what was it")
PROJECTION = Projection(ProjectionKind.NORMAL, seed=2**63, tokens=3, scale=1.0, initial_text="which kind of")


def latent(count: int) -> LatentPrompts:
    return LatentPrompts(np.random.default_rng(0).normal(size=(count, 12)).astype(np.float32), PROJECTION)


@pytest.fixture(params=["fake in process", "fake over gRPC", "bert in process", "bert over gRPC"])
def ptm(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path], ptm_servers: Any) -> Iterator[Ptm]:
    model, _, way = request.param.partition(" ")
    backend = load("fake" if model == "fake" else str(checkpoint("bert-encoder")), threads=1)
    engine = Engine(
        backend, time.monotonic, Quotas(cache_bytes=0)
    )  # no cache, since the laws would hold trivially with one
    if way == "in process":
        yield LocalPtm(engine, IN_PROCESS)
        return
    with connect(f"127.0.0.1:{ptm_servers.start(engine)}") as channel:
        yield RemotePtm(channel, call_seconds=60.0)


def register(ptm: Ptm, texts: tuple[str, ...] = TEXTS) -> str:
    return ptm.register_examples(ptm.register_task(TASK), Examples(texts), 3).id


def test_card_describes_the_model(ptm: Ptm) -> None:
    card = ptm.describe()
    assert card.revision and card.max_tokens > 0 and card.max_prompts >= 20 and card.score_noise == 0.0
    assert card == ptm.describe()


def test_equal_tasks_have_the_same_id(ptm: Ptm) -> None:
    assert ptm.register_task(TASK) == ptm.register_task(TASK)
    assert ptm.register_task(TASK) != ptm.register_task(TaskSpec(TASK.template, TASK.classes[::-1]))


def test_label_tokens_are_told_for_each_class_and_register_the_task(ptm: Ptm) -> None:
    assert ptm.label_tokens(TASK) == (1,) * len(TASK.classes)
    assert ptm.register_examples(TASK.id, Examples(TEXTS), 3).count == len(TEXTS)


def test_equal_examples_have_the_same_handle(ptm: Ptm) -> None:
    task_id = ptm.register_task(TASK)
    handle = ptm.register_examples(task_id, Examples(TEXTS), 3)
    assert handle == ptm.register_examples(task_id, Examples(TEXTS), 3)
    assert handle.count == len(TEXTS) and handle.tokens > 0
    others = [
        ptm.register_examples(task_id, Examples(TEXTS[::-1]), 3),
        ptm.register_examples(task_id, Examples(TEXTS), 4),
        ptm.register_examples(task_id, Examples(TEXTS), 3, Perturbation(0.5, 1)),
        ptm.register_examples(ptm.register_task(TaskSpec("{text} {prompt}", TASK.classes)), Examples(TEXTS), 3),
    ]
    assert len({handle.id, *(other.id for other in others)}) == 5


def test_every_kind_of_prompt_is_scored(ptm: Ptm) -> None:
    handle, width = register(ptm), ptm.describe().embedding_width
    kinds: list[Prompts] = [
        latent(2),
        SoftPrompts(np.linspace(-1, 1, 2 * 3 * width, dtype=np.float32).reshape(2, 3, width)),
        TokenPrompts(np.array([[5, 6], [7, 8]], np.int32)),
        TextPrompts(("which kind", "a long story of people")),
    ]
    for prompts in kinds:
        scored = ptm.score(handle, prompts)
        assert scored.scores.shape == (2, len(TEXTS), 3) and scored.scores.dtype == np.float32
        assert np.isfinite(scored.scores).all() and scored.revision == ptm.describe().revision


def test_row_scores_alone_as_in_a_batch(ptm: Ptm) -> None:
    whole = ptm.score(register(ptm), latent(3)).scores
    for row, text in enumerate(TEXTS):
        assert np.array_equal(ptm.score(register(ptm, (text,)), latent(3)).scores[:, 0], whole[:, row])


def test_split_population_scores_as_a_whole(ptm: Ptm) -> None:
    handle, prompts = register(ptm), latent(5)
    parts = [ptm.score(handle, LatentPrompts(prompts.z[i : i + 2], PROJECTION)).scores for i in (0, 2, 4)]
    assert np.array_equal(np.concatenate(parts), ptm.score(handle, prompts).scores)


def test_scores_are_in_the_order_of_the_prompts(ptm: Ptm) -> None:
    forward = ptm.score(register(ptm), latent(4)).scores
    backward = ptm.score(register(ptm, TEXTS[::-1]), LatentPrompts(latent(4).z[::-1].copy(), PROJECTION)).scores
    assert np.array_equal(backward[::-1, ::-1], forward)


def test_zero_latent_scores_as_the_initial_text(ptm: Ptm) -> None:
    handle = register(ptm)
    zero = ptm.score(handle, LatentPrompts(np.zeros((1, 12), np.float32), PROJECTION))
    assert np.array_equal(zero.scores, ptm.score(handle, TextPrompts((PROJECTION.initial_text,))).scores)


def test_perturbed_inputs_differ_and_are_reproducible(ptm: Ptm) -> None:
    task_id = ptm.register_task(TASK)

    def scores(perturbation: Perturbation | None) -> np.ndarray:
        handle = ptm.register_examples(task_id, Examples(TEXTS), 3, perturbation)
        return ptm.score(handle.id, latent(1)).scores

    assert np.array_equal(scores(Perturbation(0.5, 2**64 - 1)), scores(Perturbation(0.5, 2**64 - 1)))
    assert not np.array_equal(scores(Perturbation(0.5, 1)), scores(None))
    assert np.array_equal(scores(Perturbation(0.0, 1)), scores(None))


def test_usage_adds_up(ptm: Ptm) -> None:
    before, handle = ptm.usage(), register(ptm)
    assert ptm.usage() == before  # registering is free
    used = [ptm.score(handle, latent(count)).usage for count in (1, 4)]
    assert [usage.queries for usage in used] == [len(TEXTS), 4 * len(TEXTS)] and used[1].tokens == 4 * used[0].tokens
    total = sum(used, before)
    assert (ptm.usage().queries, ptm.usage().tokens) == (total.queries, total.tokens)
    assert math.isclose(ptm.usage().compute_seconds, total.compute_seconds, abs_tol=1e-5)
    assert isinstance(total, Usage)


def test_released_examples_are_unknown(ptm: Ptm) -> None:
    handle, other = register(ptm), register(ptm, TEXTS[::-1])
    ptm.release(handle)
    ptm.release(handle)
    ptm.release("never registered")
    with pytest.raises(UnknownExamples):
        ptm.score(handle, latent(1))
    assert np.isfinite(ptm.score(other, latent(1)).scores).all()


def bad_prompts(ptm: Ptm) -> list[tuple[Prompts, type[FedbbptError]]]:
    card = ptm.describe()

    def z(array: object, projection: Projection = PROJECTION) -> LatentPrompts:
        return LatentPrompts(np.asarray(array, np.float32), projection)

    def projected(**changed: object) -> LatentPrompts:
        fields = {"kind": ProjectionKind.NORMAL, "seed": 1, "tokens": 3, "scale": 1.0, "initial_text": "", **changed}
        return z([[1.0, 2.0]], Projection(**fields))  # type: ignore[arg-type]  # the test passes invalid fields

    return [
        (z([[math.nan, 0.0]]), InvalidTensor),
        (z([[math.inf, 0.0]]), InvalidTensor),
        (z([1.0, 2.0]), InvalidTensor),
        (z(np.zeros((0, 3))), InvalidTensor),
        (z(np.zeros((2, 0))), InvalidTensor),
        (z([[3e38, -3e38]]), InvalidTensor),
        (z(np.zeros((card.max_prompts + 1, 2))), InvalidTensor),
        (z(np.zeros((1, 2**22 - 99))), InvalidTensor),
        (z([[1.1 * card.max_latent, 0.0]]), InvalidTensor),
        (LatentPrompts(np.zeros((1, 3)), PROJECTION), InvalidTensor),  # type: ignore[arg-type]  # float64
        (projected(tokens=0), InvalidTensor),
        (projected(scale=math.inf), InvalidTensor),
        (projected(tokens=card.max_tokens), PromptTooLong),
        (SoftPrompts(np.zeros((1, 2, card.embedding_width + 1), np.float32)), InvalidTensor),
        (SoftPrompts(np.zeros((1, 0, card.embedding_width), np.float32)), InvalidTensor),
        (SoftPrompts(np.full((1, 2, card.embedding_width), math.nan, np.float32)), InvalidTensor),
        (SoftPrompts(np.zeros((1, card.max_tokens - 1, card.embedding_width), np.float32)), PromptTooLong),
        (SoftPrompts(np.full((1, 2, card.embedding_width), card.max_vector_norm, np.float32)), InvalidTensor),
        (SoftPrompts(np.full((1, 2, card.embedding_width), 3e38, np.float32)), InvalidTensor),
        (TokenPrompts(np.array([[-1]], np.int32)), InvalidTensor),
        (TokenPrompts(np.array([[10**6]], np.int32)), InvalidTensor),
        (TokenPrompts(np.array([[1]], np.int64)), InvalidTensor),
        (TextPrompts(()), InvalidTensor),
        (TextPrompts(("so " * card.max_tokens,)), PromptTooLong),
        (TextPrompts(("so " * 100 * card.max_tokens,)), PromptTooLong),
    ]


def test_invalid_prompts_are_rejected_and_the_service_goes_on(ptm: Ptm) -> None:
    handle = register(ptm)
    good, before = ptm.score(handle, latent(2)).scores, ptm.usage()
    for prompts, error in bad_prompts(ptm):
        with pytest.raises(error) as raised:
            ptm.score(handle, prompts)
        assert raised.value.what and raised.value.where and raised.value.fix
    assert ptm.usage() == before  # refusals are free
    assert np.array_equal(ptm.score(handle, latent(2)).scores, good)


def test_invalid_examples_are_rejected_and_the_service_goes_on(ptm: Ptm) -> None:
    task_id, card = ptm.register_task(TASK), ptm.describe()
    for examples in (
        Examples(()),
        Examples(("fine", "")),
        Examples(("fine", " \n")),
        Examples(("fine", "half \ud83d")),
        Examples(("fine", "x" * 1_000_001)),
        Examples(("text",) * (card.max_examples + 1)),
        Examples(("a", "b"), ("only one",)),
        Examples(("a",), ("no place for it",)),
    ):
        with pytest.raises(InvalidExamples):
            ptm.register_examples(task_id, examples, 3)
    for prompt_tokens in (card.max_tokens - 1, card.max_tokens, 2**31 - 1):
        if prompt_tokens < card.max_tokens and card.family == "fake":
            continue  # no special tokens: there is room for one
        with pytest.raises(PromptTooLong):
            ptm.register_examples(task_id, Examples(TEXTS), prompt_tokens)
    with pytest.raises(InvalidExamples, match="labels"):  # labels must not be sent
        ptm.register_examples(task_id, Examples(TEXTS), 3, labels=np.zeros(len(TEXTS), np.int64))
    for rate in (-0.1, 1.5, math.nan):
        with pytest.raises(InvalidExamples):
            ptm.register_examples(task_id, Examples(TEXTS), 3, Perturbation(rate, 1))
    with pytest.raises(UnknownTask):
        ptm.register_examples("no such task", Examples(TEXTS), 3)
    assert ptm.score(register(ptm), latent(1)).scores.shape == (1, len(TEXTS), 3)


@pytest.mark.parametrize("template", ["{prompt}", "{text} {text}", "{text} {mask}", "{text} {x}", "{text", "{text!r}"])
def test_invalid_tasks_are_rejected(ptm: Ptm, template: str) -> None:
    with pytest.raises(InvalidTask) as raised:
        ptm.register_task(TaskSpec(template, TASK.classes))
    assert raised.value.where == "template" and raised.value.fix


def test_unknown_examples_are_rejected(ptm: Ptm) -> None:
    with pytest.raises(UnknownExamples):
        ptm.score("no such handle", latent(1))
