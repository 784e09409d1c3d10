"""The laws of interfaces.Backend and interfaces.Ptm for image models, in this process and over real gRPC.

The laws are those of test_backend.py and test_ptm.py; only examples and prompts differ.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    FedbbptError,
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    UnknownExamples,
    UnsupportedPrompt,
)
from fedbbpt.interfaces import Backend, Ptm
from fedbbpt.prompts.none import NoPrompt
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.types import Examples, ImagePrompts, Perturbation, Prompts, Scores, TaskSpec, TextPrompts
from fedbbpt.wire.channel import connect
from tests import jobs
from tests.slow import slow_except

DRAW = np.random.default_rng(0)
IMAGES = DRAW.integers(0, 256, (20, 3, 8, 8), np.uint8)
DELTAS = DRAW.normal(0, 0.3, (3, 20, 3, 8, 8)).clip(-1, 1).astype(np.float32)
TASK = TaskSpec("{prompt} {text}", ("ship", "cat", "truck"))


@pytest.fixture(scope="module", params=slow_except(["onnx", "clip", "vit", "resnet"], "onnx", "clip"))
def model(request: pytest.FixtureRequest, image_classifier: Path, checkpoint: Callable[[str], Path]) -> str:
    return str(image_classifier if request.param == "onnx" else checkpoint(request.param))


@pytest.fixture(params=["in process", "over gRPC"])
def ptm(request: pytest.FixtureRequest, model: str, ptm_servers: Any) -> Iterator[Ptm]:
    engine = Engine(load(model, threads=1), time.monotonic)
    if request.param == "in process":
        yield LocalPtm(engine, IN_PROCESS)
        return
    with connect(f"127.0.0.1:{ptm_servers.start(engine)}") as channel:
        yield RemotePtm(channel, call_seconds=60.0)


@pytest.fixture(scope="module")
def again(model: str) -> Callable[[int], Backend[Any]]:
    """Loads the model again, with a number of threads."""
    return lambda threads: load(model, threads=threads)


def score(backend: Backend[Any], deltas: npt.NDArray[np.float32], images: npt.NDArray[np.uint8] = IMAGES) -> Scores:
    rows = backend.prepare(TASK, Examples(images=images), 0, None)
    return jobs.score(backend, TASK, ImagePrompts(deltas), rows)


def ask(ptm: Ptm, prompts: Prompts, images: npt.NDArray[np.uint8] = IMAGES) -> Scores:
    handle = ptm.register_examples(ptm.register_task(TASK), Examples(images=images), 0)
    assert handle.count == len(images) and handle.tokens == 64 * len(images)
    return ptm.score(handle.id, prompts).scores


def test_pair_scores_the_same_bits_alone_and_in_a_batch(again: Callable[[int], Backend[Any]]) -> None:
    """Kills: a batch whose size changes the rounding; the delta of another example."""
    backend = again(1)
    assert backend.describe().score_noise == 0.0
    together = score(backend, DELTAS)
    assert together.shape == (3, 20, 3) and together.dtype == np.float32
    for p, b in np.ndindex(3, 20):
        alone = score(backend, DELTAS[p : p + 1, b : b + 1], IMAGES[b : b + 1])
        assert np.array_equal(alone[0, 0], together[p, b])


def test_order_and_number_of_threads_do_not_matter(again: Callable[[int], Backend[Any]]) -> None:
    there = score(again(1), DELTAS)
    back = score(again(2), np.ascontiguousarray(DELTAS[::-1, ::-1]), IMAGES[::-1])
    assert np.array_equal(back[::-1, ::-1], there)
    assert again(1).describe() == again(2).describe()


def test_only_wanted_pairs_are_computed(again: Callable[[int], Backend[Any]]) -> None:
    backend, wanted = again(1), np.random.default_rng(1).random((3, 20)) < 0.3
    job = backend.job(TASK, ImagePrompts(DELTAS), backend.prepare(TASK, Examples(images=IMAGES), 0, None), wanted)
    found = jobs.run(backend, job, (3, 20, 3))
    assert np.array_equal(~np.isnan(found).any(axis=2), wanted)
    assert np.array_equal(found[wanted], score(backend, DELTAS)[wanted])
    assert sum(batch.tokens for batch in job.batches) == 64 * wanted.sum()


def test_card_states_the_shape_of_images(ptm: Ptm) -> None:
    card = ptm.describe()
    assert card == ptm.describe() and card.revision
    assert card.image_shape == (3, 8, 8)


def test_classes_may_be_in_any_order(ptm: Ptm) -> None:
    forward = ask(ptm, ImagePrompts(DELTAS))
    task = TaskSpec(TASK.template, TASK.classes[::-1])
    handle = ptm.register_examples(ptm.register_task(task), Examples(images=IMAGES), 0)
    assert np.array_equal(ptm.score(handle.id, ImagePrompts(DELTAS)).scores[:, :, ::-1], forward)
    for classes in (("cat",), ("cat", "cat")):
        with pytest.raises(InvalidTask):
            ptm.register_task(TaskSpec(TASK.template, classes))


def test_one_picture_for_all_examples_equals_a_copy_for_each(ptm: Ptm) -> None:
    one = DELTAS[:, :1]
    assert np.array_equal(ask(ptm, ImagePrompts(one)), ask(ptm, ImagePrompts(np.repeat(one, 20, axis=1))))


def test_pixels_are_clipped_to_black_and_white(ptm: Ptm) -> None:
    bright = np.ones((1, 1, 3, 8, 8), np.float32)
    assert np.array_equal(ask(ptm, ImagePrompts(bright)), ask(ptm, ImagePrompts(bright), IMAGES[::-1]))
    assert not np.array_equal(
        ask(ptm, ImagePrompts(bright)), ask(ptm, NoPrompt(0).prompts(NoPrompt.Z, Examples(images=IMAGES)))
    )


def test_parts_of_prompts_and_examples_score_as_the_whole(ptm: Ptm) -> None:
    whole = ask(ptm, ImagePrompts(DELTAS))
    assert np.array_equal(ask(ptm, ImagePrompts(DELTAS[1:])), whole[1:])
    assert np.array_equal(ask(ptm, ImagePrompts(DELTAS[:, 5:9].copy()), IMAGES[5:9]), whole[:, 5:9])


def test_usage_counts_pairs(ptm: Ptm) -> None:
    ask(ptm, ImagePrompts(DELTAS))
    assert (ptm.usage().queries, ptm.usage().tokens) == (60, 60 * 64)


def test_unsupported_prompts_and_examples_are_refused(ptm: Ptm) -> None:
    task_id = ptm.register_task(TASK)
    handle = ptm.register_examples(task_id, Examples(images=IMAGES), 0).id
    nan = DELTAS.copy()
    nan[0, 0, 0, 0, 0] = np.nan
    wrong: list[tuple[Prompts, type[FedbbptError]]] = [
        (TextPrompts(("a digit",)), UnsupportedPrompt),
        (ImagePrompts(DELTAS[:, :7]), InvalidTensor),
        (ImagePrompts(DELTAS[..., :4].copy()), InvalidTensor),
        (ImagePrompts(nan), InvalidTensor),
        (ImagePrompts(DELTAS + 1), InvalidTensor),
    ]
    for prompts, error in wrong:
        with pytest.raises(error):
            ptm.score(handle, prompts)
    for examples in (Examples(("a text",)), Examples(images=IMAGES[:, :1]), Examples(images=IMAGES[:0])):
        with pytest.raises(InvalidExamples):
            ptm.register_examples(task_id, examples, 0)
    with pytest.raises(InvalidExamples):
        ptm.register_examples(task_id, Examples(images=IMAGES), 0, Perturbation(0.5, 1))
    ptm.release(handle)
    with pytest.raises(UnknownExamples):
        ptm.score(handle, ImagePrompts(DELTAS))
