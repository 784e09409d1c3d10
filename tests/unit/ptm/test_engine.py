"""The engine: lifetimes of handles, tenants, limits, metering."""

import inspect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from fedbbpt.errors import (
    InvalidExamples,
    InvalidTask,
    InvalidTensor,
    MessageTooLarge,
    Overloaded,
    UnknownExamples,
    UnknownTask,
)
from fedbbpt.interfaces import ScoringJob
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.fake import Fake, FakeRow
from fedbbpt.ptm.scheduling.planner import PlannedJob
from fedbbpt.ptm.tenants.handles import IN_USE_SECONDS
from fedbbpt.ptm.tenants.state import Quotas
from fedbbpt.ptm.tenants.tenant import IN_PROCESS, Tenant
from fedbbpt.types import (
    Examples,
    LatentPrompts,
    MicroBatch,
    Projection,
    ProjectionKind,
    Prompts,
    Scores,
    TaskSpec,
    TextPrompts,
    Usage,
)

TASK = TaskSpec("{prompt} {text}", ("a number", "a person"))
EXAMPLES = Examples(("who was it", "how many films"))
PROMPTS = TextPrompts(("which kind", "what"))


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Changed(Fake):
    """A fake whose micro-batches are run by `run`."""

    def run(self, job: ScoringJob, batch: MicroBatch) -> Scores:
        return job.run(batch)

    def job(
        self, task: TaskSpec, prompts: Prompts, rows: Sequence[FakeRow], wanted: npt.NDArray[np.bool_]
    ) -> PlannedJob:
        planned = super().job(task, prompts, rows, wanted)
        return PlannedJob(planned.batches, lambda batch: self.run(planned, batch))


class Breaking(Changed):
    """Raises once, at its second micro-batch."""

    ran = 0

    def __init__(self) -> None:
        super().__init__(token_budget=1)

    def run(self, job: ScoringJob, batch: MicroBatch) -> Scores:
        self.ran += 1
        if self.ran == 2:
            raise TimeoutError
        return super().run(job, batch)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def registered_task(clock: Clock, quotas: Quotas | None = None) -> tuple[LocalPtm, str]:
    """Returns a PTM with a registered task, and the task's id."""
    ptm = LocalPtm(Engine(Fake(), clock, quotas), IN_PROCESS)
    return ptm, ptm.register_task(TASK)


def test_handle_expires_when_it_is_not_used(clock: Clock) -> None:
    ptm, task_id = registered_task(clock, Quotas(time_to_live_seconds=10.0))
    used, idle = (ptm.register_examples(task_id, EXAMPLES, room).id for room in (4, 5))
    clock.now = 8.0
    ptm.score(used, PROMPTS)
    clock.now = 16.0
    ptm.score(used, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(idle, PROMPTS)
    assert ptm.engine.handles(tenant=IN_PROCESS) == 1  # the idle one is gone


def test_least_recently_used_handle_makes_room(clock: Clock) -> None:
    ptm, task_id = registered_task(clock, Quotas(bytes=6000))
    first, second = (ptm.register_examples(task_id, EXAMPLES, room).id for room in (4, 5))
    clock.now = IN_USE_SECONDS
    ptm.score(first, PROMPTS)
    third = ptm.register_examples(task_id, EXAMPLES, 6).id
    for kept in (first, third):
        ptm.score(kept, PROMPTS)
    with pytest.raises(UnknownExamples):
        ptm.score(second, PROMPTS)
    assert 0 < ptm.engine.kept_bytes <= 6000


def test_examples_in_use_never_make_room(clock: Clock) -> None:
    """Kills: clients of one tenant that evict each other's examples at every call, for ever."""
    ptm, task_id = registered_task(clock, Quotas(bytes=6000))
    handles = [ptm.register_examples(task_id, EXAMPLES, room).id for room in (4, 5)]
    clock.now = IN_USE_SECONDS - 1
    with pytest.raises(Overloaded, match="2 sets of examples in use fill this tenant's quota of 6000 bytes"):
        ptm.register_examples(task_id, EXAMPLES, 6)
    for handle in handles:
        ptm.score(handle, PROMPTS)
    ptm.release(handles[0])
    assert ptm.register_examples(task_id, EXAMPLES, 6).id


def test_examples_that_alone_exceed_the_quota_are_refused(clock: Clock) -> None:
    ptm, task_id = registered_task(clock, Quotas(bytes=1000))
    with pytest.raises(InvalidExamples, match="at most 1000"):
        ptm.register_examples(task_id, EXAMPLES, 4)
    assert ptm.engine.kept_bytes == 0


def test_tenant_keeps_several_thousand_small_sets_of_examples(clock: Clock) -> None:
    ptm, task_id = registered_task(clock)
    handles = [ptm.register_examples(task_id, Examples((f"text {i}",)), 4).id for i in range(3000)]
    assert ptm.score(handles[0], PROMPTS).answer.shape[1] == 1


def test_handle_lives_until_every_registration_is_released(clock: Clock) -> None:
    ptm, task_id = registered_task(clock)
    one, other = (ptm.register_examples(task_id, EXAMPLES, 4).id for _ in range(2))
    ptm.release(one)
    assert ptm.score(other, PROMPTS).usage.queries == 4
    ptm.release(other)
    with pytest.raises(UnknownExamples):
        ptm.score(other, PROMPTS)


def test_number_of_tasks_is_limited(clock: Clock) -> None:
    ptm, task_id = registered_task(clock, Quotas(tasks=1))
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id
    ptm.register_task(TaskSpec("{text}", ("x", "y")))
    with pytest.raises(UnknownTask):
        ptm.register_examples(task_id, EXAMPLES, 4)
    ptm.score(handle, PROMPTS)  # registered examples keep their task


def test_tenants_share_neither_tasks_nor_handles_nor_usage(clock: Clock) -> None:
    engine = Engine(Fake(), clock, Quotas(bytes=3000))
    a, b = (LocalPtm(engine, Tenant(name=name)) for name in "ab")
    task_id = a.register_task(TASK)
    with pytest.raises(UnknownTask):
        b.register_examples(task_id, EXAMPLES, 4)
    own = a.register_examples(task_id, EXAMPLES, 4).id
    assert b.register_task(TASK) == task_id
    with pytest.raises(UnknownExamples):
        b.score(own, PROMPTS)
    assert b.register_examples(task_id, EXAMPLES, 5).id != own
    b.release(own)
    assert a.score(own, PROMPTS).usage.cached_queries == 0
    assert a.usage().queries == 4 and b.usage() == engine.usage(tenant=IN_PROCESS) == Usage()
    assert engine.handles(tenant=a.tenant) == engine.handles(tenant=b.tenant) == 1


def test_every_method_for_a_tenant_requires_one() -> None:
    """Kills: a default tenant, under which a caller that forgets the argument would have no limits."""
    methods = {name: method for name, method in inspect.getmembers(Engine, inspect.isfunction) if name[0] != "_"}
    without_tenant = {name for name, method in methods.items() if "tenant" not in inspect.signature(method).parameters}
    # A call knows its tenant, label tokens have none, and a new tenants file is about all.
    assert without_tenant == {"close", "finish", "cancel", "label_tokens", "check_change"}
    for name in methods.keys() - without_tenant:
        assert inspect.signature(methods[name]).parameters["tenant"].default is inspect.Parameter.empty


def test_failed_call_pays_for_the_computed_pairs_only(clock: Clock) -> None:
    ptm = LocalPtm(Engine(Breaking(), clock), IN_PROCESS)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    with pytest.raises(TimeoutError):
        ptm.score(handle, PROMPTS)
    used = ptm.usage()
    assert 0 < used.queries < 4 and used.cached_queries == 0
    again = ptm.score(handle, PROMPTS)  # the backend works again, and computed pairs are cached
    assert again.usage.cached_queries == used.queries
    assert ptm.usage().tokens == used.tokens + again.usage.tokens
    sound, task_id = registered_task(clock)
    assert np.array_equal(again.scores, sound.score(sound.register_examples(task_id, EXAMPLES, 4).id, PROMPTS).scores)


def test_repeated_pairs_are_computed_once(clock: Clock) -> None:
    ptm, task_id = registered_task(clock)
    texts = ("who was it", "how many films", "who was it")
    handle = ptm.register_examples(task_id, Examples(texts), 4).id
    scored = ptm.score(handle, TextPrompts(("which", "what", "which")))
    assert (scored.usage.queries, scored.usage.cached_queries) == (9, 5)
    assert np.array_equal(scored.scores[0], scored.scores[2]) and np.array_equal(
        scored.scores[:, 0], scored.scores[:, 2]
    )
    plain = LocalPtm(Engine(Fake(), clock, Quotas(cache_bytes=0)), IN_PROCESS)
    other = plain.register_examples(plain.register_task(TASK), Examples(texts), 4).id
    for index, text in enumerate(("which", "what", "which")):
        assert np.array_equal(plain.score(other, TextPrompts((text,))).scores[0], scored.scores[index])
    assert ptm.score(handle, TextPrompts(("what",))).usage.cached_queries == 3


def test_fresh_call_computes_every_pair(clock: Clock) -> None:
    ptm, task_id = registered_task(clock)
    handle = ptm.register_examples(task_id, EXAMPLES, 4).id
    known = ptm.score(handle, PROMPTS)
    call = ptm.engine.begin(handle, TextPrompts(PROMPTS.texts * 2), tenant=IN_PROCESS, fresh=True)
    for batch in call.scoring.batches:
        call.scoring.run(batch)
    fresh = ptm.engine.finish(call)
    assert fresh.usage.cached_queries == 0 and fresh.usage.tokens == 2 * known.usage.tokens
    assert np.array_equal(fresh.scores, np.tile(known.scores, (2, 1, 1)))


def test_compute_time_is_measured_by_the_clock(clock: Clock) -> None:
    class Slow(Changed):
        def run(self, job: ScoringJob, batch: MicroBatch) -> Scores:
            clock.now += 3.0
            return job.run(batch)

    ptm = LocalPtm(Engine(Slow(), clock), IN_PROCESS)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    assert ptm.score(handle, TextPrompts(("which",))).usage.compute_seconds == 3.0


def test_scores_that_are_not_finite_are_neither_sent_nor_cached(clock: Clock) -> None:
    class Broken(Changed):
        def run(self, job: ScoringJob, batch: MicroBatch) -> Scores:
            scores = job.run(batch)
            scores[batch.prompts == 1] = np.nan
            return scores

    ptm = LocalPtm(Engine(Broken(), clock), IN_PROCESS)
    handle = ptm.register_examples(ptm.register_task(TASK), EXAMPLES, 4).id
    for _ in range(2):
        with pytest.raises(InvalidTensor, match=r"prompts \[1\]"):
            ptm.score(handle, PROMPTS)


def test_answer_too_large_for_a_message_is_rejected_before_the_work(clock: Clock) -> None:
    ptm = LocalPtm(Engine(Fake(), clock), IN_PROCESS)
    task_id = ptm.register_task(TaskSpec("{text}", tuple(f"class {k}" for k in range(100))))
    handle = ptm.register_examples(task_id, Examples(tuple(f"text {i}" for i in range(1000))), 4).id
    with pytest.raises(MessageTooLarge, match="fewer prompts"):
        ptm.score(handle, TextPrompts(("a",) * 100))


def test_gradient_free_search_learns_on_the_fake() -> None:
    """Steps along finite differences lower the cross-entropy, so a search has something to find."""
    words = {0: ("many", "count", "much"), 1: ("who", "name", "man"), 2: ("where", "land", "city")}
    texts = tuple(f"{word} {filler}" for k in words for word in words[k] for filler in ("is it", "of old", "then"))
    labels = np.repeat(np.arange(3), 9)
    ptm = LocalPtm(Engine(Fake(), lambda: 0.0), IN_PROCESS)
    task_id = ptm.register_task(TaskSpec("{prompt} {text}", ("alpha", "beta", "gamma")))
    handle = ptm.register_examples(task_id, Examples(texts), 4).id
    projection = Projection(ProjectionKind.RADEMACHER, 1, 4, 1.0, "sort it")

    def loss(z: np.ndarray) -> np.ndarray:
        logits = ptm.score(handle, LatentPrompts(z.astype(np.float32), projection)).scores.astype(np.float64)
        chosen = logits[:, np.arange(len(labels)), labels]
        losses: np.ndarray = (np.log(np.exp(logits).sum(axis=2)) - chosen).mean(axis=1)
        return losses

    z, step = np.zeros(20), 0.01
    start = loss(z[None])[0]
    for _ in range(60):
        gradient = (loss(z + step * np.eye(20)) - loss(z - step * np.eye(20))) / (2 * step)
        z = z - 4.0 * gradient
    assert start > 0.9 and loss(z[None])[0] < 0.6 * start


@pytest.mark.parametrize(
    "task",
    [
        TaskSpec("{prompt} {text}", tuple(f"class {i}" for i in range(1001))),
        TaskSpec("{prompt} {text}", ("a number", "a person" * 100_000)),
    ],
)
def test_too_large_task_is_rejected_and_not_kept(clock: Clock, task: TaskSpec) -> None:
    ptm, task_id = registered_task(clock)
    with pytest.raises(InvalidTask, match="at most"):
        ptm.register_task(task)
    assert ptm.register_examples(task_id, EXAMPLES, 4).count == len(EXAMPLES)
