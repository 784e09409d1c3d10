"""The PTM over gRPC, as clients use it.

Every call is idempotent and is retried while the service is unavailable or overloaded. If the service does not know the
examples, because it has forgotten them or another of its replicas answers, `RemotePtm` sends them along with the next
call, and the caller does not notice. A service that changes its model is an error.
"""

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
import numpy as np
import numpy.typing as npt
from google.protobuf.message import Message

from fedbbpt.errors import (
    ChecksumMismatch,
    LabelsWithheld,
    Overloaded,
    PtmUnavailable,
    RateLimited,
    RevisionChanged,
    StoreError,
    Unavailable,
    UnknownExamples,
    UnknownTask,
    WrongService,
)
from fedbbpt.ptm.tenants.policy import check_labels
from fedbbpt.ptm.v1 import ptm_pb2 as pb
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.types import (
    Examples,
    ExampleSet,
    ExamplesHandle,
    ModelCard,
    Perturbation,
    Prompts,
    Scored,
    Statement,
    TaskSpec,
    Usage,
)
from fedbbpt.wire.messages import card_messages, ptm_messages, usage_messages
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.peers import line_of
from fedbbpt.wire.tracing import metadata, span

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

REPLICAS = 8
"""The most replicas that may serve one address in turn, without sharing state."""


@dataclass(frozen=True, slots=True)
class _Registered:
    """The task and examples of a handle, to send them again if the service has forgotten them."""

    id: str
    """The service's current handle. The caller keeps the first one."""
    task: TaskSpec
    examples: ExampleSet
    resent: int = 0
    """Number of times that the examples were sent along with a call."""


class RemotePtm:
    """Implements `interfaces.Ptm` over a channel.

    Every call may raise RevisionChanged, DeadlineExceeded, any error of the service, and, after retries,
    PtmUnavailable, Overloaded, RateLimited, StoreError or ChecksumMismatch.
    """

    def __init__(
        self,
        channel: grpc.Channel,
        revision: str = "",
        *,
        call_seconds: float = 600.0,
        patience_seconds: float = 60.0,
        send_labels: bool = False,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """Asks the service for its card.

        Args:
            channel: A channel to the service; the caller closes it.
            revision: The model that must answer; empty accepts the current one, and no other afterwards.
            call_seconds: Deadline of each attempt at a call.
            patience_seconds: How long to retry after the first error.
            send_labels: Whether labels may leave this process. Only a service that returns losses needs them.
            clock: Returns seconds, from any origin.
            pause: Waits for a number of seconds.
        """
        self._stub, self._name, self._send_labels = PtmServiceStub(channel), line_of(channel).name, send_labels
        self._call_seconds = call_seconds
        retried = (Unavailable, Overloaded, RateLimited, StoreError, ChecksumMismatch)
        self._patience = Patience(patience_seconds, PtmUnavailable, retried, line_of(channel), clock, pause)
        self._tasks: dict[str, TaskSpec] = {}
        self._registered: dict[str, _Registered] = {}
        self._revision = revision
        self._card = self.describe()
        self._revision = self._card.revision

    def _call(self, method: Callable[..., M], request: Message) -> M:
        return self._patience.call(lambda: self._attempt(method, request))

    def _attempt(self, method: Callable[..., M], request: Message) -> M:
        with span("ask the PTM", rpc=type(request).__name__.removesuffix("Request")):
            return method(request, timeout=self._call_seconds, metadata=metadata())

    def describe(self) -> ModelCard:
        card = card_messages.model_card(self._call(self._stub.Describe, pb.DescribeRequest()))
        self._check_revision(card.revision)
        return card

    def _check_revision(self, revision: str) -> None:
        if self._revision and revision != self._revision:
            raise RevisionChanged(
                f"the PTM has revision {revision}",
                where="revision",
                fix=f"{self._revision}, as at the start of the run",
            )

    def register_task(self, task: TaskSpec) -> str:
        return self._register_task(task).task_id

    def label_tokens(self, task: TaskSpec) -> tuple[int, ...]:
        counts = tuple(self._register_task(task).label_tokens)
        if len(counts) not in (0, len(task.classes)):
            what = f"numbers of label tokens for {len(counts)} of {len(task.classes)} classes"
            raise WrongService(what, where="label_tokens", fix="a service that gives one for each class, or none")
        return counts

    def _register_task(self, task: TaskSpec) -> pb.RegisterTaskResponse:
        response = self._call(self._stub.RegisterTask, ptm_messages.register_task_request(task))
        self._tasks[response.task_id] = task
        return response

    def register_examples(
        self,
        task_id: str,
        examples: Examples,
        prompt_tokens: int,
        perturbation: Perturbation | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> ExamplesHandle:
        """Checks the examples before it sends them: labels go only to a service that needs them, and only if they may.

        Raises:
            LabelsWithheld: The service returns losses only, and this process may not send labels.
        """
        task = self._tasks.get(task_id)
        if task is None:
            raise UnknownTask(f"no task {task_id!r}", where="task_id", fix="register the task first")
        wanted = ExampleSet(examples, prompt_tokens, perturbation, labels)
        wanted.check(self._card)
        check_labels(self._card.output, labels, len(task.classes))
        if labels is not None and not self._send_labels:
            what = f"{self._name} returns losses only, so it needs every example's label"
            fix = "--send-labels-to-ptm or ptm.send_labels = true, if it may have the labels, or a service with scores"
            raise LabelsWithheld(what, where="labels", fix=fix)
        handle = self._register(task_id, wanted)
        self._registered[handle.id] = _Registered(handle.id, task, wanted)
        return handle

    def _register(self, task_id: str, examples: ExampleSet) -> ExamplesHandle:
        request = ptm_messages.register_examples_request(task_id, examples)
        for attempt in range(1, REPLICAS + 1):
            try:
                return ptm_messages.examples_handle(self._call(self._stub.RegisterExamples, request))
            except UnknownTask:
                # This replica does not know the task. Replicas take turns, so registering it often enough reaches all.
                for _ in range(attempt):
                    self.register_task(self._tasks[task_id])
        return ptm_messages.examples_handle(self._call(self._stub.RegisterExamples, request))

    def score(self, examples_id: str, prompts: Prompts) -> Scored:
        registered = self._registered.get(examples_id)
        if registered is None:
            raise UnknownExamples("released or never registered", where="examples_id", fix="register again")
        try:
            response = self._score(registered.id, prompts)
        except UnknownExamples:
            log.info("the service does not know the examples; sending them along with the call")
            # Describe detects a service that restarted with another model. Calling it a varying number of times makes
            # the next call reach another replica; a fixed number could miss the one without the examples for ever.
            for _ in range(registered.resent % REPLICAS + 1):
                self.describe()
            response = self._score((registered.task, registered.examples), prompts)
            self._registered[examples_id] = replace(registered, id=response.examples_id, resent=registered.resent + 1)
        self._check_revision(response.revision)
        return ptm_messages.scored(response, self._card.output)

    def _score(self, examples: str | tuple[TaskSpec, ExampleSet], prompts: Prompts) -> pb.ScoreResponse:
        # All attempts share one key, so that a lost reply is neither computed nor charged again.
        return self._call(self._stub.Score, ptm_messages.score_request(examples, prompts, secrets.token_hex(16)))

    def release(self, examples_id: str) -> None:
        """Releases the examples.

        If there are several replicas, only one of them receives the call; on the others the examples expire.
        """
        registered = self._registered.pop(examples_id, None)
        if registered is not None:
            self._call(self._stub.Release, pb.ReleaseRequest(examples_id=registered.id))

    def usage(self) -> Usage:
        """Returns the usage; if there are several replicas, that of one of them."""
        return self.statement().usage

    def statement(self) -> Statement:
        """Returns the caller's account; if there are several replicas, that at one of them."""
        return usage_messages.statement(self._call(self._stub.GetUsage, pb.GetUsageRequest()))
