"""The black box behind gRPC, as a client sees it. An edge file.

Calls that are idempotent are made again while nobody answers or the service is overloaded. A service that has forgotten
the examples gets them once more, unseen by the caller. A service that changes its model is an error.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import grpc

from fedbbpt.errors import (
    Overloaded,
    PtmUnavailable,
    RevisionChanged,
    Unavailable,
    UnknownExamples,
    UnknownTask,
)
from fedbbpt.interfaces import ExamplesHandle
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.ptm.validation import check_examples
from fedbbpt.types import Examples, ModelCard, Perturbation, Prompts, Scored, TaskSpec, Usage
from fedbbpt.wire import ptm_messages
from fedbbpt.wire.patience import Patience

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Registered:
    """What makes a handle anew; `id` is the service's present one, the caller keeps the first."""

    id: str
    task_id: str
    examples: Examples
    prompt_tokens: int
    perturbation: Perturbation | None


class RemotePtm:
    """`interfaces.Ptm` over a channel.

    `revision` pins the model; empty pins the one that answers first. Every call may raise RevisionChanged,
    DeadlineExceeded after `call_seconds`, PtmUnavailable or Overloaded after `patience_seconds`, and what the service
    raises.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        revision: str = "",
        *,
        call_seconds: float = 600.0,
        patience_seconds: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stub = PtmServiceStub(channel)
        self._call_seconds = call_seconds
        self._patience = Patience(patience_seconds, PtmUnavailable, (Unavailable, Overloaded), clock, pause)
        self._tasks: dict[str, TaskSpec] = {}
        self._registered: dict[str, _Registered] = {}
        self._revision = revision
        self._card = self.describe()
        self._revision = self._card.revision

    def describe(self) -> ModelCard:
        request = pb.DescribeRequest()
        card = ptm_messages.model_card(
            self._patience.call(lambda: self._stub.Describe(request, timeout=self._call_seconds))
        )
        self._check_revision(card.revision)
        return card

    def _check_revision(self, revision: str) -> None:
        if self._revision and revision != self._revision:
            raise RevisionChanged(
                f"the PTM is revision {revision}", where="revision", fix=f"{self._revision}, with which the run began"
            )

    def register_task(self, task: TaskSpec) -> str:
        request = ptm_messages.register_task_request(task)
        response = self._patience.call(lambda: self._stub.RegisterTask(request, timeout=self._call_seconds))
        self._tasks[response.task_id] = task
        return response.task_id

    def register_examples(
        self, task_id: str, examples: Examples, prompt_tokens: int, perturbation: Perturbation | None = None
    ) -> ExamplesHandle:
        """Made again as well: a handle that nobody heard of costs nothing and expires.

        What no service can take is refused here, above all text that is no Unicode, which would break the stream.
        """
        check_examples(examples, prompt_tokens, perturbation, self._card)
        registered = _Registered("", task_id, examples, prompt_tokens, perturbation)
        handle = self._register(registered)
        self._registered[handle.id] = replace(registered, id=handle.id)
        return handle

    def _register(self, wanted: _Registered) -> ExamplesHandle:
        def send() -> pb.RegisterExamplesResponse:
            requests = ptm_messages.register_examples_requests(
                wanted.task_id, wanted.examples, wanted.prompt_tokens, wanted.perturbation
            )
            return self._stub.RegisterExamples(requests, timeout=self._call_seconds)

        try:
            return ptm_messages.examples_handle(self._patience.call(send))
        except UnknownTask:
            if wanted.task_id not in self._tasks:
                raise
            self.register_task(self._tasks[wanted.task_id])
            return ptm_messages.examples_handle(self._patience.call(send))

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        registered = self._registered.get(examples_id)
        if registered is None:
            raise UnknownExamples("released or never registered", where="examples_id", fix="register again")
        try:
            scored = self._score(registered.id, prompts)
        except UnknownExamples:
            log.info("the service has forgotten the examples; registering them again")
            self.describe()  # which tells a service that came back with another model
            registered = replace(registered, id=self._register(registered).id)
            self._registered[examples_id] = registered
            scored = self._score(registered.id, prompts)
        self._check_revision(scored.revision)
        return scored

    def _score(self, examples_id: str, prompts: Prompts) -> Scored:
        request = ptm_messages.score_request(examples_id, prompts)
        return ptm_messages.scored(self._patience.call(lambda: self._stub.Score(request, timeout=self._call_seconds)))

    def release(self, examples_id: str) -> None:
        registered = self._registered.pop(examples_id, None)
        if registered is not None:
            request = pb.ReleaseRequest(examples_id=registered.id)
            self._patience.call(lambda: self._stub.Release(request, timeout=self._call_seconds))

    def usage(self) -> Usage:
        request = pb.GetUsageRequest()
        response = self._patience.call(lambda: self._stub.GetUsage(request, timeout=self._call_seconds))
        return ptm_messages.usage(response.usage)
