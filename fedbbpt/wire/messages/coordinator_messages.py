"""Converts hellos, run settings, tasks and updates between `fedbbpt.types` and coordinator.proto and method.proto.

A function with the name of a type reads it from its message; one with the name of a message writes it. Unreadable
messages raise InvalidRequest. Larger arrays travel in chunks of their own (`wire.tensors`).
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from google.protobuf.message import Message

from fedbbpt.errors import InvalidRequest, VersionMismatch
from fedbbpt.secure.fixed_point import LEAST_DEVIATION, MOST_DEVIATION
from fedbbpt.secure.graph import LEAST_CLIENTS
from fedbbpt.types import (
    Arrays,
    Auxiliary,
    ExtensionSettings,
    Hello,
    Measurement,
    MethodSettings,
    NoiseShare,
    Phase,
    Receipt,
    RunSettings,
    Sampling,
    Task,
    TaskId,
    Update,
)
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import method_pb2, tensor_pb2
from fedbbpt.wire.messages.codes import read_code
from fedbbpt.wire.messages.durations import duration, seconds_of
from fedbbpt.wire.messages.extension_messages import extension_message, extension_settings
from fedbbpt.wire.messages.space_messages import space, task_spec, write_task
from fedbbpt.wire.tensors import bundle, chunks

PROTOCOL_VERSION = 1


_CODECS = {
    "float32": pb.CODEC_FLOAT32,
    "float16": pb.CODEC_FLOAT16,
    "bfloat16": pb.CODEC_BFLOAT16,
    "int8": pb.CODEC_INT8,
    "int4": pb.CODEC_INT4,
    "rotate": pb.CODEC_ROTATE,
    "topk": pb.CODEC_TOP_K,
}
"""The links of codecs by their names in a job."""
_PHASES = {
    Phase.UPDATE: pb.PHASE_UPDATE,
    Phase.EVALUATE: pb.PHASE_EVALUATE,
    Phase.TUNE: pb.PHASE_TUNE,
}
_RECEIPTS = {
    Receipt.COUNTED: pb.RECEIPT_COUNTED,
    Receipt.DUPLICATE: pb.RECEIPT_DUPLICATE,
    Receipt.TOO_LATE: pb.RECEIPT_TOO_LATE,
    Receipt.REFUSED: pb.RECEIPT_REFUSED,
}
_CHOICES: Mapping[str, Mapping[str, int]] = {
    "generator": {
        "soft": method_pb2.FedBbptSettings.GENERATOR_SOFT,
        "categorical": method_pb2.FedBbptSettings.GENERATOR_CATEGORICAL,
        "visual": method_pb2.FedBbptSettings.GENERATOR_VISUAL,
    },
    "score_function": {
        "true": method_pb2.FedBbptSettings.SCORE_FUNCTION_TRUE,
        "signed": method_pb2.FedBbptSettings.SCORE_FUNCTION_SIGNED,
    },
    "local_covariance": {
        "full": method_pb2.FedBptSettings.COVARIANCE_FULL,
        "diagonal": method_pb2.FedBptSettings.COVARIANCE_DIAGONAL,
        "identity": method_pb2.FedBptSettings.COVARIANCE_IDENTITY,
    },
}
"""The codes of method settings that are enumerations, by the names of their fields."""


# Joining


def join_request(hello: Hello, run: str = "") -> pb.JoinRequest:
    """Writes a hello to the run of this name, or to the coordinator's only one."""
    return pb.JoinRequest(
        protocol_version=PROTOCOL_VERSION,
        client_id=hello.client_id,
        client_key=hello.client_key,
        codecs=[_CODECS[name] for name in sorted(hello.codecs)],
        examples=hello.examples,
        run=run,
        clips_examples=hello.clips_examples,
        adds_noise=hello.adds_noise,
        relay=hello.relay,
    )


def hello(request: pb.JoinRequest) -> Hello:
    """Reads a hello without codecs that are unknown here. Raises VersionMismatch."""
    if request.protocol_version != PROTOCOL_VERSION:
        raise VersionMismatch(
            f"protocol version {request.protocol_version}", where="protocol_version", fix=f"{PROTOCOL_VERSION}"
        )
    codecs = frozenset(name for name, code in _CODECS.items() if code in request.codecs)
    return Hello(
        request.client_id,
        request.client_key,
        request.examples,
        codecs,
        clips_examples=request.clips_examples,
        adds_noise=request.adds_noise,
        relay=request.relay,
    )


def join_response(
    session: str,
    run_name: str,
    settings: RunSettings,
    heartbeat_seconds: float,
    methods: Mapping[str, type[MethodSettings]],
) -> pb.JoinResponse:
    """Returns the answer to a client that joins; `methods` are the types of the methods' settings by method name."""
    return pb.JoinResponse(
        run_name=run_name,
        session=session,
        run_id=settings.run_id,
        task=write_task(settings.task, settings.labels, settings.space),
        method=_method_message(settings.method, methods),
        codec=_codec_message(settings.codec),
        down_codec=_codec_message(settings.downlink),
        kept=settings.kept,
        ptm_address=settings.ptm_address,
        ptm_revision=settings.ptm_revision,
        rounds=settings.rounds,
        max_update_bytes=settings.max_update_bytes,
        heartbeat=duration(heartbeat_seconds),
        auxiliary=_auxiliary_message(settings.auxiliary),
        sampling=pb.Sampling(**asdict(settings.sampling)),
        secure=_secure_message(settings),
        clip_norm=settings.clip_norm,
    )


def _codec_message(name: str) -> list[pb.Codec.ValueType]:
    return [_CODECS[link] for link in name.split("+")]


def _codec(links: Sequence[pb.Codec.ValueType], where: str) -> str:
    return "+".join(read_code(_CODECS, link, where) for link in links)


def _auxiliary_message(auxiliary: Auxiliary | None) -> pb.Auxiliary | None:
    if auxiliary is None:
        return None
    return pb.Auxiliary(total_bytes=auxiliary.size_bytes, sha256=bytes.fromhex(auxiliary.sha256))


def _method_message(settings: MethodSettings, methods: Mapping[str, type[MethodSettings]]) -> method_pb2.MethodSettings:
    """Writes the settings of a built-in method into the message that has the same fields, or those of a plug-in."""
    if isinstance(settings, ExtensionSettings):
        return method_pb2.MethodSettings(extension=extension_message(settings))
    message = method_pb2.MethodSettings()
    name = next(name for name, known in methods.items() if isinstance(settings, known))
    chosen = getattr(message, _field_of(name))
    chosen.SetInParent()  # settings that are all 0 are present, too
    for field in chosen.DESCRIPTOR.fields:
        value = getattr(settings, field.name)
        setattr(chosen, field.name, _CHOICES[field.name][value] if field.name in _CHOICES else value)
    return message


def _field_of(method: str) -> str:
    return method.replace("-", "_")


def run_settings(response: pb.JoinResponse, methods: Mapping[str, type[MethodSettings]]) -> RunSettings:
    """Reads the settings of a run; `methods` are the types of the methods' settings by method name."""
    return RunSettings(
        run_id=response.run_id,
        task=task_spec(response.task),
        labels=tuple(response.task.labels),
        space=space(response.task),
        method=_method(response.method, methods),
        codec=_codec(response.codec, "codec"),
        downlink=_codec(response.down_codec, "down_codec") or "float32",
        kept=_kept(response.kept),
        rounds=response.rounds,
        ptm_address=response.ptm_address,
        ptm_revision=response.ptm_revision,
        max_update_bytes=response.max_update_bytes,
        auxiliary=_auxiliary(response.auxiliary) if response.HasField("auxiliary") else None,
        sampling=_sampling(response.sampling) if response.HasField("sampling") else Sampling(),
        secure_threshold=response.secure.threshold if response.HasField("secure") else None,
        clip_norm=_clip_norm(response.clip_norm),
        noise=_noise(response.secure.noise, response.clip_norm) if response.secure.HasField("noise") else None,
    )


def _secure_message(settings: RunSettings) -> pb.SecureAggregation | None:
    if settings.secure_threshold is None:
        return None
    noise = None if settings.noise is None else pb.SecureNoise(**asdict(settings.noise))
    return pb.SecureAggregation(threshold=settings.secure_threshold, noise=noise)


def _noise(sent: pb.SecureNoise, clip_norm: float) -> NoiseShare:
    noise = NoiseShare(sent.deviation, sent.clients, sent.clip_norm)
    if not LEAST_DEVIATION <= noise.deviation <= MOST_DEVIATION:
        fix = f"from {LEAST_DEVIATION} to {MOST_DEVIATION}"
        raise InvalidRequest(f"{noise.deviation}", where="secure.noise.deviation", fix=fix)
    if noise.clients < LEAST_CLIENTS:
        raise InvalidRequest(f"{noise.clients}", where="secure.noise.clients", fix=f"at least {LEAST_CLIENTS}")
    if not 0 <= noise.clip_norm < math.inf or (noise.clip_norm > 0) == (clip_norm > 0):
        what, fix = f"{noise.clip_norm} beside a clip_norm of {clip_norm}", "a finite number above 0 in one of them"
        raise InvalidRequest(what, where="secure.noise.clip_norm", fix=fix)
    return noise


def _clip_norm(sent: float) -> float:
    if not 0 <= sent < math.inf:
        raise InvalidRequest(f"{sent}", where="clip_norm", fix="a finite number from 0")
    return sent


def _kept(sent: float) -> float:
    if not 0 <= sent <= 1:
        raise InvalidRequest(f"{sent}", where="kept", fix="above 0 and at most 1")
    return sent or 1.0


def _auxiliary(sent: pb.Auxiliary) -> Auxiliary:
    if len(sent.sha256) != hashlib.sha256().digest_size:
        raise InvalidRequest(f"{len(sent.sha256)} bytes", where="auxiliary.sha256", fix="the 32 of a SHA-256")
    return Auxiliary(sent.total_bytes, sent.sha256.hex())


def _sampling(sent: pb.Sampling) -> Sampling:
    for name, least in (("batch_examples", 0), ("dev_every", 1)):
        if getattr(sent, name) < least:
            raise InvalidRequest(f"{getattr(sent, name)}", where=f"sampling.{name}", fix=f"at least {least}")
    return Sampling(sent.batch_examples, sent.dev_every, sent.seed)


def _method(message: method_pb2.MethodSettings, methods: Mapping[str, type[MethodSettings]]) -> MethodSettings:
    field = message.WhichOneof("method")
    if field == "extension":
        return extension_settings(message.extension)
    settings = next((known for name, known in methods.items() if _field_of(name) == field), None)
    if field is None or settings is None:
        raise InvalidRequest("a method that is unknown here", where="method", fix=f"one of {', '.join(methods)}")
    sent = getattr(message, field)
    return settings(**{each.name: _setting(sent, each.name) for each in sent.DESCRIPTOR.fields})


def _setting(sent: Message, name: str) -> Any:
    value = getattr(sent, name)
    return read_code(_CHOICES[name], value, f"method.{name}") if name in _CHOICES else value


# Tasks and updates


def task_id(message: pb.TaskId) -> TaskId:
    """Reads the id of a task."""
    return TaskId(message.run_id, message.round, message.client_id, read_code(_PHASES, message.phase, "id.phase"))


def _task_id_message(task_id: TaskId) -> pb.TaskId:
    return pb.TaskId(
        run_id=task_id.run_id, round=task_id.round, client_id=task_id.client_id, phase=_PHASES[task_id.phase]
    )


@dataclass(frozen=True, slots=True)
class Replayed:
    """What says to a client that replays how to find the broadcast of a task."""

    before: bytes
    """The digest of the state before, empty if the task holds the whole state."""
    after: bytes
    """The digest of the state after."""
    seeds: tuple[int, ...] = ()
    """The seeds of the rounds that the client missed."""


class SharedTask:
    """The task of a round, which is the same for all its clients except for their ids, serialised once.

    Only the client's id in the task differs between clients, so the rest is serialised once. The bytes of a client are
    put together such that no field occurs twice: some languages' decoders replace a repeated message, where protobuf
    would merge both.
    """

    def __init__(self, task: Task, arrays: Arrays | None = None, replay: Replayed | None = None) -> None:
        """
        Args:
            task: the task of any client of the round.
            arrays: a state or news, for clients that replay; None sends the broadcast.
            replay: what the arrays are, for clients that replay.
        """
        announced, data = bundle(task.arrays if arrays is None else arrays)
        header = pb.TaskHeader(
            seed=task.seed,
            deadline=duration(task.deadline_seconds),
            arrays=announced,
            replay=pb.Replay(**asdict(replay)) if replay else None,
            traceparent=task.traceparent,
        )
        self._id = _task_id_message(replace(task.id, client_id="")).SerializeToString()
        self._header = header.SerializeToString()
        self._chunks = [pb.TakePartResponse(chunk=chunk).SerializeToString() for chunk in chunks(data)]

    def messages(self, own: bytes) -> list[bytes]:
        """Returns the messages for a client, each a serialised TakePartResponse. `own` is its `own_part`."""
        header = _field(pb.TaskHeader.ID_FIELD_NUMBER, self._id + own) + self._header
        return [_field(pb.TakePartResponse.TASK_FIELD_NUMBER, header), *self._chunks]


def own_part(client_id: str) -> bytes:
    """Returns what the id of a client's task has besides the id that all clients share."""
    return pb.TaskId(client_id=client_id).SerializeToString()


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a message: its tag, its length and the serialised message in it."""
    head, length = bytearray([number << 3 | 2]), len(content)
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + content


def receipt_part(receipt: Receipt) -> bytes:
    """Returns a receipt as a serialised TakePartResponse, which may follow another one in the same message."""
    return pb.TakePartResponse(receipt=_RECEIPTS[receipt]).SerializeToString()


def task(header: pb.TaskHeader, arrays: Arrays) -> Task:
    """Reads a task, whose arrays have been read."""
    return Task(task_id(header.id), header.seed, arrays, seconds_of(header.deadline), header.traceparent)


def update_header(
    session: str,
    task_id: TaskId,
    update: Update,
    announced: tensor_pb2.TensorBundle,
    *,
    run_id: str = "",
    client_id: str = "",
) -> pb.UpdateHeader:
    """Writes an update; `announced` describes its arrays.

    `run_id` and `client_id` are those of the session. An id that names the same ones is sent without them.
    """
    shown = pb.TaskId(round=task_id.round, phase=_PHASES[task_id.phase])
    if task_id.run_id != run_id:
        shown.run_id = task_id.run_id
    if task_id.client_id != client_id:
        shown.client_id = task_id.client_id
    return pb.UpdateHeader(
        session=session,
        id=shown,
        weight=update.weight,
        measurement=_measurement_message(update.measurement),
        arrays=announced,
        finalists=map(_measurement_message, update.finalists),
    )


def update(header: pb.UpdateHeader, arrays: Arrays) -> Update:
    """Reads an update, whose arrays have been read."""
    if not header.HasField("measurement"):
        raise InvalidRequest("an update without a measurement", where="measurement", fix="a measurement in each update")
    return Update(
        arrays, header.weight, _measurement(header.measurement), finalists=tuple(map(_measurement, header.finalists))
    )


def _measurement_message(measured: Measurement) -> pb.Measurement:
    return pb.Measurement(
        dev_loss_sum=measured.dev_loss_sum,
        dev_examples=measured.dev_examples,
        dev_correct=measured.dev_correct,
        queries=measured.queries,
    )


def _measurement(sent: pb.Measurement) -> Measurement:
    correct = sent.dev_correct if sent.HasField("dev_correct") else None
    return Measurement(sent.dev_loss_sum, sent.dev_examples, correct, sent.queries)


def receipt_code(receipt: Receipt) -> pb.Receipt.ValueType:
    """Writes a receipt."""
    return _RECEIPTS[receipt]


def receipt(code: pb.Receipt.ValueType) -> Receipt:
    """Reads a receipt."""
    return read_code(_RECEIPTS, code, "receipt")
