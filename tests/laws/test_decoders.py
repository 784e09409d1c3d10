"""Every reader of a message returns its value or raises an error of this project, whatever the message holds."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import FedbbptError
from fedbbpt.limits import MAX_MESSAGE_BYTES
from fedbbpt.methods import SETTINGS
from fedbbpt.methods.fed_cma import METHOD, FedCmaConfig
from fedbbpt.prompts.latent import LatentSpace
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.server.checks import check_hello
from fedbbpt.types import (
    UNLIMITED,
    Arrays,
    Examples,
    ExampleSet,
    ExamplesHandle,
    Hello,
    LatentPrompts,
    Measurement,
    MemberStatus,
    Output,
    Perturbation,
    Phase,
    Projection,
    ProjectionKind,
    Report,
    Result,
    RunSettings,
    RunState,
    RunStatus,
    Scored,
    SoftPrompts,
    Task,
    TaskId,
    TaskSpec,
    TextPrompts,
    TokenPrompts,
    Update,
    Usage,
)
from fedbbpt.v1 import coordinator_pb2, run_pb2
from fedbbpt.wire.messages import card_messages, coordinator_messages, operator_messages, ptm_messages, usage_messages
from fedbbpt.wire.messages.coordinator_messages import SharedTask
from fedbbpt.wire.messages.operator_messages import Progress
from fedbbpt.wire.tensors import Assembler, bundle
from tests.robustness.mutation import damaged

PROJECTION = Projection(ProjectionKind.RADEMACHER, 1, 2, 1.0, "")
SPACE = LatentSpace(5, PROJECTION)
TASK = TaskSpec("{prompt} {text}", ("bad", "good"))
REPORT = Report(2, 3, 0.5, 0.75, None, 10, 1.5, 100, 200, 4)
STATUS = RunStatus(
    "run-1", "fed-cma", RunState.RUNNING, 2, 3, (MemberStatus("anna", True, False, 4),), REPORT, REPORT, 9, None, None
)
SETTINGS_OF_RUN = RunSettings(
    "run-1", TASK, ("0", "1"), SPACE, METHOD.settings(FedCmaConfig()), "float32", 3, "", "", 1000
)
ARRAYS: Arrays = {"losses": np.arange(6.0, dtype=np.float32), "z": np.ones((2, 3))}
TASK_ID = TaskId("run-1", 1, "anna", Phase.UPDATE)
EXAMPLES = ExampleSet(Examples(("a b", "c"), ("d", "e")), 4, Perturbation(0.1, 3), np.array([0, 1]))
PROMPTS = [
    LatentPrompts(np.ones((2, 5), np.float32), PROJECTION),
    SoftPrompts(np.ones((2, 1, 2), np.float32)),
    TokenPrompts(np.ones((2, 3), np.int32)),
    TextPrompts(("a", "b")),
]
SCORED = Scored(
    Output.LABEL_LOGITS, np.ones((2, 2, 2), np.float32), "r", Usage(), UNLIMITED, np.zeros((2, 2, 2), np.bool_)
)


def read_task(response: coordinator_pb2.TakePartResponse) -> Task:
    assembler = Assembler(response.task.arrays, 10_000)
    return coordinator_messages.task(response.task, assembler.arrays())


def read_update(request: coordinator_pb2.TakePartRequest) -> tuple[TaskId, Update]:
    arrays = Assembler(request.update.arrays, 10_000).arrays()
    return coordinator_messages.task_id(request.update.id), coordinator_messages.update(request.update, arrays)


UPDATE = Update(ARRAYS, 4.0, Measurement(2.0, 4, 3, 10))
(TASK_BYTES,) = SharedTask(Task(TASK_ID, 3, ARRAYS, 60.0)).messages(coordinator_messages.own_part("anna"))

READERS: Mapping[str, tuple[list[Message], Callable[[Any], object]]] = {
    "JoinRequest": (
        [coordinator_messages.join_request(Hello("anna", "key", 4, frozenset({"float32"})))],
        lambda request: check_hello(coordinator_messages.hello(request), "float32"),
    ),
    "JoinResponse": (
        [coordinator_messages.join_response("session", "tiny", SETTINGS_OF_RUN, 10.0, SETTINGS)],
        lambda response: coordinator_messages.run_settings(response, SETTINGS),
    ),
    "TakePartResponse": ([coordinator_pb2.TakePartResponse.FromString(TASK_BYTES)], read_task),
    "TakePartRequest": (
        [
            coordinator_pb2.TakePartRequest(
                update=coordinator_messages.update_header("", TASK_ID, UPDATE, bundle(ARRAYS)[0])
            )
        ],
        read_update,
    ),
    "WatchRunResponse": ([Progress().response(STATUS, [REPORT])], lambda response: Progress().read(response)),
    "GetRunResponse": (
        [run_pb2.GetRunResponse(run=operator_messages.run(STATUS))],
        lambda response: operator_messages.run_status(response.run),
    ),
    "GetResultResponse": (
        [operator_messages.get_result_response(Result(np.ones(5, np.float32), REPORT), STATUS, "tiny", "{}")],
        operator_messages.result,
    ),
    "DescribeResponse": ([card_messages.describe_response(Fake().describe())], card_messages.model_card),
    "RegisterTaskRequest": ([ptm_messages.register_task_request(TASK)], ptm_messages.task),
    "RegisterExamplesRequest": (
        [ptm_messages.register_examples_request("task", EXAMPLES)],
        ptm_messages.example_set,
    ),
    "RegisterExamplesResponse": (
        [ptm_messages.register_examples_response(ExamplesHandle("id", 2, 5, None), 60.0)],
        ptm_messages.examples_handle,
    ),
    "ScoreRequest": (
        [
            *(ptm_messages.score_request("id", prompts) for prompts in PROMPTS),
            ptm_messages.score_request((TASK, EXAMPLES), PROMPTS[0]),
        ],
        lambda request: (ptm_messages.scored_examples(request), ptm_messages.prompts(request)),
    ),
    "ScoreResponse": (
        [ptm_messages.score_response(SCORED, "id")],
        lambda response: ptm_messages.scored(response, Output.LABEL_LOGITS),
    ),
    "GetUsageResponse": (
        [usage_messages.get_usage_response(Usage(), UNLIMITED, 1, {"": Usage()})],
        usage_messages.statement,
    ),
}


@pytest.mark.parametrize("name", READERS)
@given(draw=st.randoms(use_true_random=False))
def test_a_reader_returns_or_raises_an_error_of_the_project(name: str, draw: Any) -> None:
    messages, read = READERS[name]
    valid = draw.choice(messages)
    data = damaged(valid, draw)
    assert len(data) < MAX_MESSAGE_BYTES
    try:
        message = type(valid).FromString(data)
    except DecodeError:
        return  # interceptors and channels refuse it before any reader sees it
    try:
        read(message)
    except FedbbptError as error:
        assert error.what


@pytest.mark.parametrize("name", READERS)
def test_the_undamaged_messages_are_read(name: str) -> None:
    messages, read = READERS[name]
    for message in messages:
        read(type(message).FromString(message.SerializeToString()))
