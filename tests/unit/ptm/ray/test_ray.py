"""Replicas, their caches, and the options of the service on Ray, tested without Ray itself."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Generator
from dataclasses import replace
from functools import partial
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fedbbpt import cli
from fedbbpt.errors import FedbbptError, InvalidTask, PromptTooLong, RevisionChanged
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.ray.backend import ReplicatedBackend
from fedbbpt.ptm.ray.replica import AsyncCache, JobInputs, Replica
from fedbbpt.ptm.ray.scaling import QUEUED_TOKENS, QueuedTokens
from fedbbpt.types import Examples, Injection, ModelCard, Perturbation, SoftPrompts, TaskSpec, TextPrompts
from tests import jobs
from tests.federation import AdvancingLoop

TASK = TaskSpec("{prompt} {text} It was", ("bad", "great", "fine"))
EXAMPLES = Examples(("the film was very good", "who wrote this book", "a story", "so long and so dull"))


class Held:
    """Job inputs whose arrays are read-only, as in Ray's shared memory."""

    def __init__(self, inputs: JobInputs) -> None:
        self._inputs = inputs
        for array in (inputs.wanted, getattr(inputs.prompts, "embeddings", inputs.wanted)):
            array.setflags(write=False)

    def __await__(self) -> Generator[Any, None, JobInputs]:
        return self._inputs
        yield


class InTurn:
    """Replicas in this process that serve the calls in turn."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *models: Replica) -> None:
        self._loop, self._turns = loop, cycle(models)

    def call(self, method: str, *arguments: Any) -> Any:
        answer = getattr(next(self._turns), method)(*arguments)
        return asyncio.run_coroutine_threadsafe(answer, self._loop).result()

    def share(self, inputs: JobInputs) -> Awaitable[JobInputs]:
        return Held(inputs)


@pytest.fixture(params=["fake", "gpt2", "bert-encoder"])
def backend(request: pytest.FixtureRequest, checkpoint: Callable[[str], Path]) -> Callable[[], Backend[Any]]:
    model = "fake" if request.param == "fake" else str(checkpoint(request.param))
    return partial(load, model, threads=1)


def soft(backend: Backend[Any], count: int) -> SoftPrompts:
    """In the class texts, if the model takes them there."""
    card = backend.describe()
    injection = Injection.CLASS if Injection.CLASS in card.injections else Injection.PREFIX
    shape = (count, 3, card.embedding_width)
    return SoftPrompts(np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32), injection)


def test_replicas_give_the_bits_of_a_local_model(
    backend: Callable[[], Backend[Any]], server_loop: asyncio.AbstractEventLoop
) -> None:
    """Also for some of the pairs, reordered rows, and rows of several inputs, some of them perturbed."""
    here, there = backend(), ReplicatedBackend(InTurn(server_loop, Replica(backend), Replica(backend)), threads=3)
    ends = " {mask}" if here.describe().family == "causal-lm" else ""
    task = replace(TASK, template=TASK.template + ends)
    there.check(task)
    assert there.describe() == here.describe() and there.hidden_size == here.hidden_size
    assert there.columns(task) == here.columns(task)
    found = []
    for model in (here, there):
        rows = [
            *model.prepare(task, EXAMPLES, 4, None),
            *model.prepare(task, EXAMPLES, 4, Perturbation(0.5, 1)),
        ][::-1]
        prompts, wanted = soft(model, 4), np.random.default_rng(3).random((4, len(rows))) < 0.6
        job = model.job(task, prompts, rows, wanted)
        found.append(
            (
                [model.tokens(row) for row in rows],
                sum(batch.tokens for batch in job.batches),
                jobs.run(model, job, (*wanted.shape, 3)).tobytes(),
                jobs.score(model, task, TextPrompts(("a story", "who")), rows).tobytes(),
            )
        )
    assert found[0] == found[1]


def test_errors_of_a_replica_reach_the_caller(server_loop: asyncio.AbstractEventLoop) -> None:
    there = ReplicatedBackend(InTurn(server_loop, Replica(Fake)), threads=1)
    with pytest.raises(InvalidTask, match="or more than one"):
        there.check(replace(TASK, template="{prompt}"))
    with pytest.raises(PromptTooLong):
        there.prepare(TASK, EXAMPLES, 600, None)
    rows = there.prepare(TASK, EXAMPLES, 4, None)
    with pytest.raises(PromptTooLong, match="register the examples with room"):
        jobs.score(there, TASK, TextPrompts(("word " * 511,)), rows)


class Newer(Fake):
    def describe(self) -> ModelCard:
        return replace(super().describe(), revision="fake-3")


def test_replicas_with_different_revisions_are_an_error(server_loop: asyncio.AbstractEventLoop) -> None:
    there = ReplicatedBackend(InTurn(server_loop, Replica(Fake), Replica(Newer)), threads=1)
    rows = there.prepare(TASK, EXAMPLES, 4, None)
    there.columns(TASK)
    with pytest.raises(RevisionChanged, match="fake-3"):
        jobs.score(there, TASK, soft(there, 2), rows)


def test_async_cache_computes_a_result_once() -> None:
    """Concurrent calls share one computation, entries beyond the size are evicted, and failures are not cached."""
    made: list[str] = []

    async def make(name: str) -> str:
        made.append(name)
        await asyncio.sleep(0)
        if name == "bad":
            raise FedbbptError("bad")
        return name

    async def ask() -> None:
        cache = AsyncCache[str](10)
        assert await asyncio.gather(*[cache.get_or_compute("a", 6, partial(make, "a")) for _ in range(3)]) == ["a"] * 3
        await cache.get_or_compute("b", 4, partial(make, "b"))
        await cache.get_or_compute("a", 6, partial(make, "a"))
        assert made == ["a", "b"]
        await cache.get_or_compute("c", 4, partial(make, "c"))  # evicts b, the least recently used
        await cache.get_or_compute("a", 6, partial(make, "a"))
        await cache.get_or_compute("b", 4, partial(make, "b"))
        assert made == ["a", "b", "c", "b"]
        for _ in range(2):
            with pytest.raises(FedbbptError):
                await cache.get_or_compute("bad", 1, partial(make, "bad"))
        assert made[4:] == ["bad", "bad"]

    asyncio.run(ask())


def test_async_cache_drops_entries_that_are_long_unused() -> None:
    """Kills: inputs that stay with a replica because no other inputs evict them."""
    loop = AdvancingLoop()
    made: list[str] = []

    async def make(name: str) -> str:
        made.append(name)
        return name

    async def ask() -> None:
        cache = AsyncCache[str](10, seconds=100.0)
        for name in "ab":
            await cache.get_or_compute(name, 1, partial(make, name))
        await loop.advance(60.0)
        await cache.get_or_compute("a", 1, partial(make, "a"))
        await loop.advance(60.0)
        for _ in range(3):
            await asyncio.sleep(0)  # let due timers run
        assert "b" not in cache and "a" in cache
        await cache.get_or_compute("b", 1, partial(make, "b"))
        assert made == ["a", "b", "b"]

    loop.run_until_complete(ask())
    loop.close()


def test_number_of_replicas_follows_the_queued_tokens() -> None:
    policy = QueuedTokens(1000)

    def wanted(**reported: float) -> int:
        return policy(SimpleNamespace(aggregated_metrics={QUEUED_TOKENS: reported} if reported else {}))[0]

    assert [wanted(a=n) for n in (0.0, 1000.0, 1001.0, 5500.0)] == [1, 1, 2, 6]
    assert wanted(a=2500.0, b=2500.0) == 3  # all replicas report the same queue
    assert wanted() == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--engine", "ray", "--tls-cert", "a", "--tls-key", "b"], "Ray has no TLS"),
        (["--engine", "ray", "--host", "0.0.0.0"], "Ray has no TLS"),
        (["--engine", "ray", "--replicas", "3..2"], "not a number or range of replicas"),
        (["--engine", "ray", "--ray-address", "ray://here:10001", "--audit", "a"], "may run on another machine"),
        (["--replicas", "2"], "--engine ray"),
    ],
    ids=" ".join,
)
def test_options_that_ray_does_not_support_are_rejected(
    words: list[str], text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fedbbpt", "ptm", "serve", "--model", "fake", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code in (3, 5) and text in capsys.readouterr().err
