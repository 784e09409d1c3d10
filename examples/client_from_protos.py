"""A client of fed-cma from the protos alone, which imports no other part of fedbbpt: a guide for other languages.

It passes the profile `core` of `fedbbpt conformance client`. Of fed-cma it implements steps by ranks.

    python examples/client_from_protos.py HOST:PORT DATA.jsonl [ID FOLDER]     (lines with "text" and "label")

With a FOLDER, a client that was killed continues when it is started again.
"""

import atexit
import gc
import hashlib
import json
import math
import os
import queue
import secrets
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from fedbbpt.ptm.v1 import ptm_pb2 as ptm
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import prompt_pb2, tensor_pb2
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub

Vector = Sequence[float]
T = TypeVar("T")
DEV = 4
"""Every fourth example is a dev example."""
FIRST_PAUSE, LONGEST_PAUSE, PATIENCE = 0.1, 5.0, 600.0
"""Seconds between attempts, at first and at most, and how long a call is repeated."""
SILENT_INTERVALS = 3
REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DATA_LOSS)


class Corrupted(Exception):
    """Raised if arrays differ from their checksum."""


# Arithmetic, as docs/protocol.md specifies it


def normals(seed: int, count: int) -> list[float]:
    """Returns `count` numbers as "Draws that both ends make" specifies them."""
    pairs = -(-count // 2)
    stream = hashlib.shake_256(seed.to_bytes(8, "little")).digest(16 * pairs)
    uniforms = [((word >> 11) + 0.5) / 2.0**53 for word in struct.unpack(f"<{2 * pairs}Q", stream)]
    drawn: list[float] = []
    for u, v in zip(uniforms[::2], uniforms[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(u))
        drawn += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return drawn[:count]


def float32(x: float) -> float:
    """Returns the number rounded to float32."""
    rounded: float = struct.unpack("<f", struct.pack("<f", x))[0]
    return rounded


def cross_entropy(scores: Vector, label: int) -> float:
    """Returns the cross-entropy of the scores' softmax in nats."""
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[label]


# Calls


def connect(address: str) -> grpc.Channel:
    """Returns a channel without TLS, hence to this machine, which a proxy in the environment could not reach."""
    return grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0), ("grpc.max_reconnect_backoff_ms", 1000)])


def reason(error: Any) -> tuple[str, float | None]:
    """Returns the reason of a failed call, "" if no service of fedbbpt gave one, and the delay in its RetryInfo."""
    found, seconds = "", None
    status = rpc_status.from_call(error)
    for detail in status.details if status is not None else ():
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == "fedbbpt":
            found = info.reason
        elif detail.Unpack(retry):
            seconds = retry.retry_delay.ToTimedelta().total_seconds()
    return found, seconds


class Patience:
    """Pauses between attempts, each up to twice as long as the one before, and no shorter than the service asks for."""

    def __init__(self) -> None:
        self._pause, self._end = FIRST_PAUSE, time.monotonic() + PATIENCE

    def wait(self, error: Any) -> None:
        """Waits after an error, or raises it if the same call cannot succeed later."""
        _, seconds = reason(error)
        if (error.code() not in REPEATED and seconds is None) or time.monotonic() > self._end:
            raise error
        time.sleep((seconds or 0.0) + self._pause * (0.5 + secrets.randbelow(1000) / 2000))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def patiently(call: Callable[[], T]) -> T:
    """Returns the answer of a call, which is repeated as long as that may help."""
    patience = Patience()
    while True:
        try:
            return call()
        except grpc.RpcError as error:
            patience.wait(error)


class BlackBox:
    """The PTM with one set of examples."""

    def __init__(self, address: str, run: pb.JoinResponse, examples: Sequence[tuple[str, int]]) -> None:
        # An address with commas is a list of addresses of the same model.
        self._stub = PtmServiceStub(connect(address.partition(",")[0]))
        card = patiently(lambda: self._stub.Describe(ptm.DescribeRequest()))
        if card.output not in (ptm.OUTPUT_LABEL_LOGITS, ptm.OUTPUT_LABEL_LOGPROBS):
            raise ValueError("this client needs a score for each class")
        if run.ptm_revision not in ("", card.revision):
            raise ValueError(f"the PTM has revision {card.revision}, and the run needs {run.ptm_revision}")
        self._at_once, prompt = card.max_prompts, run.task.latent
        self._labels, self._classes = [label for _, label in examples], len(run.task.classes)
        self._projection, self._offsets = prompt.projection, prompt.offsets
        texts = [ptm.Example(text=text) for text, _ in examples]
        # Sent again with a call if the service has forgotten them, or is another one behind the same address.
        self._inline = ptm.InlineExamples(
            task=ptm.Task(template=run.task.template, classes=run.task.classes),
            examples=ptm.ExampleSet(examples=texts, prompt_tokens=prompt.projection.tokens),
        )
        self._examples_id = ""
        self.queries = 0

    def losses(self, candidates: Sequence[Vector]) -> list[tuple[float, int]]:
        """Returns for each candidate the sum of its losses, and the number of examples that it classifies correctly."""
        return [
            found
            for start in range(0, len(candidates), self._at_once)
            for found in self._losses(candidates[start : start + self._at_once])
        ]

    def _losses(self, candidates: Sequence[Vector]) -> list[tuple[float, int]]:
        dim = len(candidates[0]) - self._offsets
        data = b"".join(struct.pack(f"<{dim}f", *z[:dim]) for z in candidates)
        shape = [len(candidates), dim]
        z = tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=shape, data=data)
        answer = self._score(prompt_pb2.LatentPrompts(z=z, projection=self._projection))
        rows = list(struct.iter_unpack(f"<{self._classes}f", answer.scores.data))  # [P x B] rows of K scores
        found = []
        for index, candidate in enumerate(candidates):
            offsets = candidate[dim:] or [0.0] * self._classes
            own = rows[index * len(self._labels) : (index + 1) * len(self._labels)]
            shifted = [[float32(s + 0.25 * o) for s, o in zip(row, offsets, strict=True)] for row in own]
            mine = list(zip(shifted, self._labels, strict=True))
            hits = sum(scores.index(max(scores)) == label for scores, label in mine)
            found.append((sum(cross_entropy(scores, label) for scores, label in mine), hits))
        return found

    def _score(self, latent: prompt_pb2.LatentPrompts) -> ptm.ScoreResponse:
        """Returns the scores of prompts. All attempts have the same key, so that none is computed twice."""
        request = ptm.ScoreRequest(latent=latent, idempotency_key=secrets.token_hex(16))
        if self._examples_id:
            request.examples_id = self._examples_id
        else:
            request.inline.CopyFrom(self._inline)
        try:
            answer = patiently(lambda: self._stub.Score(request))
        except grpc.RpcError as error:
            if reason(error)[0] != "UnknownExamples":
                raise
            self._examples_id = ""
            return self._score(latent)
        self._examples_id = answer.examples_id
        self.queries += len(self._labels) * latent.z.shape[0]
        return answer


class TaskStream:
    """A call of TakePart, with a thread that sends heartbeats and ends the call if the coordinator is silent."""

    def __init__(self, stub: CoordinatorServiceStub, run: pb.JoinResponse) -> None:
        self._requests: queue.SimpleQueue[pb.TakePartRequest | None] = queue.SimpleQueue()
        self._requests.put(pb.TakePartRequest(opening=pb.Opening(session=run.session)))
        self._responses: Any = stub.TakePart(iter(self._requests.get, None))
        self._seconds = run.heartbeat.ToTimedelta().total_seconds()
        self._ended = threading.Event()
        self._waiting_since: float | None = None
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._ended.wait(self._seconds):
            self._requests.put(pb.TakePartRequest(heartbeat=pb.Heartbeat()))
            since = self._waiting_since
            if since is not None and time.monotonic() - since > SILENT_INTERVALS * self._seconds:
                self._responses.cancel()

    def __iter__(self) -> Iterator[pb.TakePartResponse]:
        while True:
            self._waiting_since = time.monotonic()
            response = next(self._responses, None)
            self._waiting_since = None
            if response is None:
                return
            yield response

    def submit(self, header: pb.UpdateHeader) -> None:
        """Sends an update; its receipt comes with one of the next responses."""
        self._requests.put(pb.TakePartRequest(update=header))

    def close(self) -> None:
        """Ends the call."""
        self._ended.set()
        self._requests.put(None)
        self._responses.cancel()


class Arriving:
    """The task that a stream brings: a header, and the bytes of its arrays."""

    def __init__(self) -> None:
        self._header, self._data, self._complete = pb.TaskHeader(), b"", True

    def add(self, response: pb.TakePartResponse) -> tuple[pb.TaskHeader, dict[str, Vector]] | None:
        """Returns the task with its arrays, flat, once it is complete. Raises Corrupted."""
        kind = response.WhichOneof("event")
        if kind == "task":
            self._header, self._data, self._complete = response.task, response.task.arrays.data, False
        elif kind == "chunk":
            if google_crc32c.value(response.chunk.data) != response.chunk.crc32c:
                raise Corrupted
            self._data += response.chunk.data
        bundle = self._header.arrays
        if self._complete or len(self._data) < bundle.total_bytes:
            return None
        if google_crc32c.value(self._data) != bundle.crc32c:
            raise Corrupted
        self._complete = True
        arrays: dict[str, Vector] = {}
        start = 0
        for spec in bundle.tensors:
            size = math.prod(spec.shape)
            arrays[spec.name] = struct.unpack_from(f"<{size}f", self._data, start)
            start += 4 * size
        return self._header, arrays


class Kept:
    """What outlives the process: the client's name and key, and its last answer."""

    def __init__(self, folder: str, client_id: str) -> None:
        self._folder = Path(folder) if folder else None
        self.client_id, self.key = client_id or f"from-protos-{secrets.token_hex(4)}", secrets.token_hex(16)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / "key"
            if not path.exists():
                self._write("key", self.key.encode())
            self.key = path.read_text()

    def _write(self, name: str, data: bytes) -> None:
        """Writes a file whole, or not at all if the process is killed."""
        assert self._folder is not None
        with (self._folder / f"{name}.new").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        (self._folder / f"{name}.new").replace(self._folder / name)

    def answer_to(self, task: pb.TaskId) -> pb.UpdateHeader | None:
        """Returns the answer to a task, if it is kept."""
        if self._folder is None or not (self._folder / "answer").exists():
            return None
        kept = pb.UpdateHeader.FromString((self._folder / "answer").read_bytes())
        return kept if kept.id == task else None

    def keep(self, answer: pb.UpdateHeader) -> None:
        """Keeps an answer, before it is sent."""
        if self._folder is not None:
            self._write("answer", answer.SerializeToString())


class Client:
    """Takes part in one run."""

    def __init__(self, address: str, path: str, kept: Kept) -> None:
        with open(path, encoding="utf-8") as file:
            self._lines = [json.loads(line) for line in file if line.strip()]
        self._coordinator, self._kept = CoordinatorServiceStub(connect(address)), kept
        self._run = self._join()
        run = self._run
        method = run.method.fed_cma
        if run.method.WhichOneof("method") != "fed_cma" or method.candidates_sent or method.expansion_sent:
            raise ValueError('this client supports fed-cma only with step = "ranks" and a diagonal covariance')
        if run.sampling.batch_examples or run.HasField("secure") or run.clip_norm or list(run.codec) != [1]:
            raise ValueError("this client supports only runs of whole float32 updates in the clear")
        examples = [(line["text"], list(run.task.labels).index(line["label"])) for line in self._lines]
        dev, self._train = examples[::DEV], [one for index, one in enumerate(examples) if index % DEV]
        self._on_dev, self._on_train = (BlackBox(run.ptm_address, run, part) for part in (dev, self._train))
        self._dev_examples = len(dev)

    def _join(self) -> pb.JoinResponse:
        request = pb.JoinRequest(
            protocol_version=1,
            client_id=self._kept.client_id,
            client_key=self._kept.key,
            codecs=[pb.CODEC_FLOAT32],
            examples=len(self._lines) - len(self._lines[::DEV]),
        )
        return patiently(lambda: self._coordinator.Join(request))

    def take_part(self) -> int:
        """Answers tasks until the run's end, and returns the number of counted updates."""
        counted, pending = 0, None
        patience = Patience()
        while True:
            stream, arriving = TaskStream(self._coordinator, self._run), Arriving()
            try:
                if pending is not None:
                    stream.submit(pending)
                for response in stream:
                    if response.receipt:
                        counted += response.receipt == pb.RECEIPT_COUNTED
                        pending, patience = None, Patience()
                    if response.HasField("finished"):
                        return counted
                    task = arriving.add(response)
                    # A new stream repeats the task whose answer was sent at once.
                    if task is not None and (pending is None or pending.id != task[0].id):
                        pending = self._answer(*task)
                        stream.submit(pending)
            except Corrupted:
                pass
            except grpc.RpcError as error:
                why, _ = reason(error)
                if why == "RunFinished":
                    return counted
                if why == "SessionUnknown":
                    self._run = self._join()
                else:
                    patience.wait(error)
            finally:
                stream.close()

    def _answer(self, task: pb.TaskHeader, arrays: dict[str, Vector]) -> pb.UpdateHeader:
        """Returns the answer to a task: the kept one, or a new one, which is kept."""
        if (kept := self._kept.answer_to(task.id)) is not None:
            return kept
        before, mean = self._on_dev.queries + self._on_train.queries, arrays["mean"]
        header, prompts = pb.UpdateHeader(id=task.id, weight=len(self._train)), [mean]
        if task.id.phase == pb.PHASE_EVALUATE:
            rows = arrays.get("finalists", [])
            prompts += [rows[start : start + len(mean)] for start in range(0, len(rows), len(mean))]
        if task.id.phase == pb.PHASE_EVALUATE or not task.id.round % max(1, self._run.sampling.dev_every):
            measured = [
                pb.Measurement(dev_loss_sum=loss, dev_examples=self._dev_examples, dev_correct=hits)
                for loss, hits in self._on_dev.losses(prompts)
            ]
            header.measurement.CopyFrom(measured[0])
            header.finalists.extend(measured[1:])
        if task.id.phase == pb.PHASE_UPDATE:
            population = self._run.method.fed_cma.population
            drawn = normals(task.seed, population * len(mean))
            rows = [drawn[start : start + len(mean)] for start in range(0, len(drawn), len(mean))]
            candidates = [
                [float32(m + s * x) for m, s, x in zip(mean, arrays["scale"], row, strict=True)] for row in rows
            ]
            unit = 2.0 ** (math.frexp(len(self._train))[1] - 1)  # the largest power of two that is at most the weight
            add_losses(header.arrays, [loss / unit for loss, _ in self._on_train.losses(candidates)])
        header.measurement.queries = self._on_dev.queries + self._on_train.queries - before
        self._kept.keep(header)
        return header


def add_losses(bundle: tensor_pb2.TensorBundle, losses: Vector) -> None:
    """Adds the array of losses, which is small enough to travel in the bundle itself."""
    bundle.data = struct.pack(f"<{len(losses)}f", *losses)
    bundle.tensors.add(name="losses", dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[len(losses)])
    bundle.total_bytes, bundle.crc32c = len(bundle.data), google_crc32c.value(bundle.data)


def main(address: str, path: str, client_id: str = "", folder: str = "") -> int:
    """Takes part in a run until its end, and returns the number of counted updates."""
    return Client(address, path, Kept(folder, client_id)).take_part()


if __name__ == "__main__":
    # At its end, Python collects streams that are left. Each takes a lock, which a stopped thread may hold for ever.
    atexit.register(gc.freeze)
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(f"usage: python {sys.argv[0]} HOST:PORT DATA.jsonl [ID FOLDER]")
    try:
        print(f"{main(*sys.argv[1:])} updates were counted")
    except (grpc.RpcError, OSError, ValueError) as problem:
        sys.exit(problem.details() if isinstance(problem, grpc.Call) else str(problem))
