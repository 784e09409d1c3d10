"""The PTM service without a network: tasks, registered examples, checks and metering around one backend.

The same object answers in process (simulation, tests) and behind gRPC (ptm/service). It knows its callers by name:
examples are the caller's own, and so is usage. It is not safe for several threads at once.
"""

import hashlib
import json
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedbbpt.errors import InvalidExamples, InvalidTensor, MessageTooLarge, UnknownExamples, UnknownTask
from fedbbpt.interfaces import Backend, ExamplesHandle
from fedbbpt.ptm.validation import check_examples, check_prompts, check_task, count
from fedbbpt.types import ENVELOPE_BYTES, Examples, ModelCard, Perturbation, Prompts, Scored, TaskSpec, Usage


@dataclass(frozen=True, slots=True)
class Limits:
    """What the service keeps for each caller, of tasks for all; what was used least recently gives way."""

    tasks: int = 1024
    handles: int = 1024
    tokens: int = 50_000_000
    time_to_live_seconds: float = 3600.0
    """A handle is kept this long after its last use."""


@dataclass(slots=True)
class _Kept:
    """Registered examples, tokenised."""

    caller: str
    task: TaskSpec
    rows: Sequence[Any]
    tokens: int
    used_at: float


def task_id(task: TaskSpec) -> str:
    """The same for the same task, in every process."""
    text = json.dumps([task.template, list(task.classes)], ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _never() -> None:
    """No caller that could give up."""


class Engine:
    """Implements interfaces.Ptm over a backend. `clock` gives seconds, from any origin."""

    def __init__(self, backend: Backend[Any], clock: Callable[[], float], limits: Limits | None = None) -> None:
        self._backend = backend
        self._card = backend.describe()
        self._clock = clock
        self._limits = limits or Limits()
        self._tasks: OrderedDict[str, TaskSpec] = OrderedDict()  # least recently registered first
        self._kept: OrderedDict[str, _Kept] = OrderedDict()  # least recently used first
        self._usage: dict[str, Usage] = {}

    @property
    def time_to_live_seconds(self) -> float:
        return self._limits.time_to_live_seconds

    def describe(self) -> ModelCard:
        return self._card

    def register_task(self, task: TaskSpec) -> str:
        """Raises InvalidTask."""
        check_task(task)
        self._backend.check(task)
        name = task_id(task)
        self._tasks[name] = task
        self._tasks.move_to_end(name)
        while len(self._tasks) > self._limits.tasks:
            self._tasks.popitem(last=False)
        return name

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        *,
        caller: str = "",
    ) -> ExamplesHandle:
        """Raises UnknownTask, InvalidExamples, PromptTooLong."""
        task = self._tasks.get(task_id)
        if task is None:
            raise UnknownTask(f"no task {task_id!r}", where="task_id", fix="register the task first")
        check_examples(examples, prompt_tokens, perturbation, self._card)
        rows = self._backend.prepare(task, examples, prompt_tokens, perturbation)
        tokens = sum(self._backend.tokens(row) for row in rows)
        if tokens > self._limits.tokens:
            raise InvalidExamples(f"{tokens} tokens", where="examples", fix=f"at most {self._limits.tokens}")
        name = secrets.token_urlsafe(24)
        self._kept[name] = _Kept(caller, task, rows, tokens, self._clock())
        self._forget(caller)
        return ExamplesHandle(name, len(rows), tokens)

    def _forget(self, caller: str) -> None:
        """Drops what has expired, and then the caller's oldest handles until its quota holds."""
        expired_before = self._clock() - self._limits.time_to_live_seconds
        for name in [name for name, kept in self._kept.items() if kept.used_at < expired_before]:
            del self._kept[name]
        own = [name for name, kept in self._kept.items() if kept.caller == caller]
        tokens = sum(self._kept[name].tokens for name in own)
        while len(own) > self._limits.handles or tokens > self._limits.tokens:
            tokens -= self._kept.pop(own.pop(0)).tokens

    def _find(self, examples_id: str, caller: str) -> _Kept:
        kept = self._kept.get(examples_id)
        if kept is None or kept.caller != caller or self._clock() - kept.used_at > self._limits.time_to_live_seconds:
            raise UnknownExamples("expired, released or never registered", where="examples_id", fix="register again")
        return kept

    def queries(self, examples_id: str, prompts: Prompts, *, caller: str = "") -> int:
        """What a score would cost. Only reads, so it may be asked beside another thread. Raises UnknownExamples."""
        return count(prompts) * len(self._find(examples_id, caller).rows)

    def score(
        self, examples_id: str, prompts: Prompts, *, caller: str = "", check: Callable[[], None] = _never
    ) -> Scored:
        """`check` is called between micro-batches; what it raises stops the work, which then costs nothing.

        Raises UnknownExamples, UnsupportedPrompt, InvalidTensor, PromptTooLong, MessageTooLarge.
        """
        kept = self._find(examples_id, caller)
        kept.used_at = self._clock()
        self._kept.move_to_end(examples_id)
        check_prompts(prompts, self._card)
        queries = self.queries(examples_id, prompts, caller=caller)
        answer_bytes = 4 * queries * len(kept.task.classes)
        if answer_bytes > self._card.max_message_bytes - ENVELOPE_BYTES:
            raise MessageTooLarge(f"{answer_bytes} bytes of scores", where="prompts", fix="fewer prompts in one call")
        started = self._clock()
        scores, tokens = self._backend.score(kept.task, prompts, kept.rows, check)
        broken = np.unique(np.argwhere(~np.isfinite(scores))[:, 0])
        if broken.size:
            what = f"the scores of prompts {broken.tolist()} are not finite"
            raise InvalidTensor(what, where="prompts", fix="prompts nearer to the model's own embeddings")
        usage = Usage(queries, tokens, self._clock() - started)
        self._usage[caller] = self.usage(caller=caller) + usage
        return Scored(scores, self._card.revision, usage)

    def release(self, examples_id: str, *, caller: str = "") -> None:
        kept = self._kept.get(examples_id)
        if kept is not None and kept.caller == caller:
            del self._kept[examples_id]

    def usage(self, *, caller: str = "") -> Usage:
        return self._usage.get(caller, Usage())

    def handles(self, *, caller: str = "") -> int:
        """How many handles the service keeps for the caller."""
        return Counter(kept.caller for kept in self._kept.values())[caller]
