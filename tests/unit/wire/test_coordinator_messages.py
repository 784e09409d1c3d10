"""The messages of the coordinator, its clients and its operators survive the round trip over the wire."""

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from fedbbpt.errors import InvalidRequest, VersionMismatch
from fedbbpt.methods import SETTINGS
from fedbbpt.methods.fed_bbpt import FedBbptSettings
from fedbbpt.methods.fed_bpt import FedBptSettings
from fedbbpt.methods.fed_cma import FedCmaSettings
from fedbbpt.methods.fed_readout import FedReadoutSettings
from fedbbpt.methods.fedavg_bbt import FedavgBbtSettings
from fedbbpt.types import (
    Hello,
    ImageSpaceSettings,
    Injection,
    LatentSpaceSettings,
    Measurement,
    MemberStatus,
    MethodSettings,
    NoiseShare,
    NoPromptSettings,
    Phase,
    PrivacyBudget,
    PrivacyLevel,
    PrivacySpent,
    Projection,
    ProjectionKind,
    PromptSpaceSettings,
    ReadoutSpaceSettings,
    Receipt,
    Report,
    Result,
    RunSettings,
    RunState,
    RunStatus,
    Task,
    TaskId,
    TaskSpec,
    Update,
)
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import run_pb2
from fedbbpt.wire.messages import coordinator_messages, operator_messages
from fedbbpt.wire.tensors import Assembler, bundle

METHODS: list[MethodSettings] = [
    FedCmaSettings(20, candidates_sent=True, expansion_sent=True),
    FedBptSettings(5, 8, 0.5, common_seed=False, local_covariance="full", ratio_of_means=True, orders_sent=False),
    FedBptSettings(6, 9, 0.0, common_seed=True, local_covariance="diagonal", ratio_of_means=False, orders_sent=True),
    FedBbptSettings(
        "categorical",
        3,
        2,
        0.1,
        0.602,
        10.0,
        0.05,
        0.101,
        0.9,
        16,
        32,
        2**64 - 1,
        20,
        1e-4,
        0.01,
        3.0,
        "signed",
        scalars_sent=False,
    ),
    FedBbptSettings(
        "visual", 1, 5, 0.01, 0.4, 1.0, 0.01, 0.1, 0.9, 8, 16, 0, 20, 1e-4, 0.01, 3.0, "true", scalars_sent=True
    ),
    FedavgBbtSettings(20, 4, best_sent=True),
    FedReadoutSettings(),
]
REPORT = Report(3, 4, 0.1 + 0.2, 1 / 3, 0.7, 1000, 1.5, 10, 20, 96)
BARE = Report(0, 1, math.inf, None, None, 0, 0.0)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_settings_survive_the_round_trip(method: MethodSettings) -> None:
    space = LatentSpaceSettings(100, Projection(ProjectionKind.NORMAL, 2**64 - 1, 8, 0.1, "It was", Injection.CONCAT))
    task = TaskSpec("{prompt} {text}", ("bad", "good"))
    settings = RunSettings("run-1", task, ("neg", "pos"), space, method, "int8", 50, "[::1]:7000", "sha256:1", 2**20)
    response = coordinator_messages.join_response("session", "tiny", settings, 2.5, SETTINGS)
    received = pb.JoinResponse.FromString(response.SerializeToString())
    assert coordinator_messages.run_settings(received, SETTINGS) == settings
    assert received.session == "session"
    assert received.heartbeat.ToTimedelta().total_seconds() == 2.5


def test_image_space_survives_the_round_trip() -> None:
    space = ImageSpaceSettings((3, 224, 224), 16, 7, (32, 64, 32, 32, 16), 0.3, 2**64 - 1)
    task = TaskSpec("{prompt} {text}", ("bad", "good"))
    settings = RunSettings("run-1", task, ("neg", "pos"), space, METHODS[0], "int8", 50, "", "", 2**20)
    response = coordinator_messages.join_response("session", "tiny", settings, 2.5, SETTINGS)
    received = pb.JoinResponse.FromString(response.SerializeToString())
    assert coordinator_messages.run_settings(received, SETTINGS) == settings
    del received.task.image.image[:]
    with pytest.raises(InvalidRequest, match="C, H and W"):
        coordinator_messages.run_settings(received, SETTINGS)


@pytest.mark.parametrize("prompt", [NoPromptSettings(7), ImageSpaceSettings((3, 8, 8), 2, 4, (4,), 0.3, 1)])
def test_readout_space_survives_the_round_trip(prompt: PromptSpaceSettings) -> None:
    space = ReadoutSpaceSettings(prompt, ("", "It was"), 5, classes=2, columns=4)
    task = TaskSpec("{prompt} {text}", ("bad", "good", "a person", "a place"))
    settings = RunSettings("run-1", task, ("neg", "pos"), space, METHODS[0], "int8", 50, "", "", 2**20)
    response = coordinator_messages.join_response("session", "tiny", settings, 2.5, SETTINGS)
    received = pb.JoinResponse.FromString(response.SerializeToString())
    assert coordinator_messages.run_settings(received, SETTINGS) == settings
    assert list(received.task.classes) == ["bad", "good"] and len(received.task.columns) == 2


def test_a_method_of_a_newer_server_is_refused() -> None:
    latent = {"projection": {"kind": "PROJECTION_KIND_NORMAL", "injection": "INJECTION_PREFIX"}}
    response = pb.JoinResponse(task={"latent": latent})  # type: ignore[arg-type]  # protobuf takes dicts, its stubs do not
    with pytest.raises(InvalidRequest, match="a method that is unknown here"):
        coordinator_messages.run_settings(response, SETTINGS)


def test_hello_survives_the_round_trip() -> None:
    hello = Hello("client-1", "key", 16, frozenset({"float32", "int8"}))
    request = coordinator_messages.join_request(hello)
    assert coordinator_messages.hello(request) == hello
    request.codecs.append(99)  # type: ignore[arg-type]  # a codec of the future
    assert coordinator_messages.hello(request) == hello
    request.protocol_version = 2
    with pytest.raises(VersionMismatch, match="protocol version 2; 1"):
        coordinator_messages.hello(request)


def test_tasks_and_updates_survive_the_round_trip() -> None:
    task = Task(TaskId("run-1", 3, "client-1", Phase.UPDATE), 2**64 - 1, {"mean": np.ones(3, np.float32)}, 0.5)
    shared = coordinator_messages.SharedTask(replace(task, id=replace(task.id, client_id="client-2")))
    (message,) = shared.messages(coordinator_messages.own_part("client-1"))
    response = pb.TakePartResponse.FromString(message + coordinator_messages.receipt_part(Receipt.COUNTED))
    assert response.receipt == pb.RECEIPT_COUNTED
    header = response.task
    read = coordinator_messages.task(header, Assembler(header.arrays, 12).arrays())
    assert (read.id, read.seed, read.deadline_seconds) == (task.id, task.seed, task.deadline_seconds)
    assert np.array_equal(read.arrays["mean"], task.arrays["mean"])

    for correct in (4, 0, None):
        finalists = (Measurement(1 / 3, dev_examples=5, dev_correct=correct), Measurement(7.0, 5, 0))
        measured = Measurement(0.1 + 0.2, dev_examples=5, dev_correct=correct, queries=20)
        update = Update({}, 0.1, measured, finalists=finalists)
        own = {"run_id": task.id.run_id, "client_id": task.id.client_id}
        sent = coordinator_messages.update_header("session", task.id, update, bundle({})[0], **own)
        assert coordinator_messages.update(sent, {}) == update
    assert coordinator_messages.task_id(sent.id) == replace(task.id, run_id="", client_id="")  # the session's
    sent.id.phase = pb.PHASE_UNSPECIFIED
    with pytest.raises(InvalidRequest, match=r"id\.phase: 0 is unknown"):
        coordinator_messages.task_id(sent.id)
    sent.ClearField("measurement")
    with pytest.raises(InvalidRequest, match="measurement"):
        coordinator_messages.update(sent, {})


def test_receipts_survive_the_round_trip() -> None:
    for receipt in Receipt:
        assert coordinator_messages.receipt(coordinator_messages.receipt_code(receipt)) is receipt


@pytest.mark.parametrize("state", RunState)
@pytest.mark.parametrize("report", [REPORT, BARE, None])
def test_status_survives_the_round_trip(state: RunState, report: Report | None) -> None:
    members = (MemberStatus("a", True, False, 16), MemberStatus("b", False, True, 2))
    counted = None if report is None else 0
    status = RunStatus("run-1", "fed-cma", state, 3, 50, members, report, report, 2**40, counted, counted)
    message = run_pb2.Run.FromString(operator_messages.run(status).SerializeToString())
    assert operator_messages.run_status(message) == status


@pytest.mark.parametrize("level", get_args(PrivacyLevel))
def test_privacy_survives_the_round_trip(level: PrivacyLevel) -> None:
    spent = PrivacySpent(PrivacyBudget(level, 8.0, 1e-5, 0.25), 1.5, 12.0)
    report = replace(REPORT, epsilon=1.5)
    status = RunStatus("run-1", "fed-cma", RunState.RUNNING, 3, 50, (), report, None, 0, None, None, privacy=spent)
    message = run_pb2.Run.FromString(operator_messages.run(status).SerializeToString())
    assert operator_messages.run_status(message) == status


def test_clipping_survives_the_round_trip() -> None:
    task = TaskSpec("{text}", ("bad", "good"))
    space = LatentSpaceSettings(2, Projection(ProjectionKind.NORMAL, 1, 2, 1.0, ""))
    settings = RunSettings("run-1", task, ("0", "1"), space, METHODS[0], "float32", 50, "", "", 2**20, clip_norm=0.25)
    response = coordinator_messages.join_response("session", "tiny", settings, 2.5, SETTINGS)
    assert coordinator_messages.run_settings(response, SETTINGS) == settings
    response.clip_norm = -1.0
    with pytest.raises(InvalidRequest, match="clip_norm"):
        coordinator_messages.run_settings(response, SETTINGS)
    for clips in (True, False):
        hello = Hello("north", "key", 4, frozenset({"float32"}), clips)
        assert coordinator_messages.hello(coordinator_messages.join_request(hello)) == hello


def test_a_watcher_is_told_what_changed_and_knows_all() -> None:
    """Kills: a member that left and stays, one that has not changed and is sent again."""
    anna, bert, clara = (MemberStatus(name, True, False, 16) for name in ("anna", "bert", "clara"))
    told, known = operator_messages.Progress(), operator_messages.Progress()
    for members, changed, left in (
        ((anna, clara), ["anna", "clara"], []),
        ((anna, bert, clara), ["bert"], []),
        ((anna, bert, replace(clara, submitted=True)), ["clara"], []),
        ((anna, clara), ["clara"], ["bert"]),
        ((), [], ["anna", "clara"]),
    ):
        status = RunStatus("run-1", "fed-cma", RunState.RUNNING, 3, 50, members, None, None, 0, None, None)
        message = run_pb2.WatchRunResponse.FromString(told.response(status, [REPORT]).SerializeToString())
        assert not message.run.members
        assert ([member.client_id for member in message.members], list(message.left)) == (changed, left)
        assert known.read(message) == (status, (REPORT,))


def test_result_survives_the_round_trip() -> None:
    z = np.asarray([0.1, -2.5], np.float32)
    status = RunStatus("run-1", "fed-cma", RunState.FINISHED, 3, 3, (), REPORT, REPORT, 0, None, None)
    response = operator_messages.get_result_response(Result(z, REPORT), status, "", "{}")
    read = operator_messages.result(run_pb2.GetResultResponse.FromString(response.SerializeToString()))
    assert read.z.dtype == np.float32
    assert np.array_equal(read.z, z)
    assert read.measured == REPORT
    assert operator_messages.run_status(response.run) == status


@pytest.mark.parametrize("noise", [NoiseShare(10**6, 7, 0.5), NoiseShare(16, 3, 0.0)])
def test_noise_in_shares_survives_the_round_trip(noise: NoiseShare) -> None:
    task = TaskSpec("{text}", ("bad", "good"))
    space = LatentSpaceSettings(2, Projection(ProjectionKind.NORMAL, 1, 2, 1.0, ""))
    told = RunSettings("run-1", task, ("0", "1"), space, METHODS[0], "float32", 50, "", "", 2**20)
    settings = replace(told, secure_threshold=0.67, noise=noise, clip_norm=0.0 if noise.clip_norm else 2.0)
    response = coordinator_messages.join_response("session", "tiny", settings, 2.5, SETTINGS)
    assert coordinator_messages.run_settings(response, SETTINGS) == settings
    hello = Hello("anna", "key", 3, frozenset({"float32"}), adds_noise=True)
    assert coordinator_messages.hello(coordinator_messages.join_request(hello)) == hello


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"deviation": 15}, "secure.noise.deviation"),
        ({"deviation": 2**45 + 1}, "secure.noise.deviation"),
        ({"clients": 2}, "secure.noise.clients"),
        ({"clip_norm": 0.0}, "secure.noise.clip_norm"),
        ({"clip_norm": math.nan}, "secure.noise.clip_norm"),
    ],
)
def test_noise_that_protects_nobody_is_refused(change: dict[str, float], where: str) -> None:
    """Kills: a client that takes the word of a coordinator for shares of 0."""
    response = pb.JoinResponse(codec=[pb.CODEC_FLOAT32])
    noise = pb.SecureNoise(**{"deviation": 1000, "clients": 3, "clip_norm": 1.0, **change})  # type: ignore[arg-type]  # each field has its own type
    with pytest.raises(InvalidRequest) as error:
        coordinator_messages._noise(noise, response.clip_norm)
    assert error.value.where == where
