"""A client of fed-cma from the protos alone, which imports no other part of fedbbpt: a guide for other languages.

To stay small, it fails where a real client would retry, and it stores nothing on disk.

    python examples/client_from_protos.py HOST:PORT DATA.jsonl     (lines with "text" and "label")
"""

import hashlib
import json
import math
import queue
import secrets
import struct
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence

import google_crc32c
import grpc

from fedbbpt.ptm.v1 import ptm_pb2 as ptm
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceStub
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import method_pb2, prompt_pb2, tensor_pb2
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub

Vector = Sequence[float]
DEV = 4
"""Every fourth example is a dev example."""


def normals(seed: int, count: int) -> list[float]:
    """Returns `count` numbers as docs/protocol.md specifies in "Draws that both ends make"."""
    pairs = -(-count // 2)
    stream = hashlib.shake_256(seed.to_bytes(8, "little")).digest(16 * pairs)
    uniforms = [((word >> 11) + 0.5) / 2.0**53 for word in struct.unpack(f"<{2 * pairs}Q", stream)]
    drawn: list[float] = []
    for u, v in zip(uniforms[::2], uniforms[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(u))
        drawn += [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    return drawn[:count]


def cross_entropy(scores: Vector, label: int) -> float:
    """Returns the cross-entropy of the scores' softmax in nats."""
    top = max(scores)
    return top + math.log(sum(math.exp(score - top) for score in scores)) - scores[label]


def connect(address: str) -> grpc.Channel:
    """Returns a channel without TLS, hence to this machine, which a proxy in the environment could not reach."""
    return grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)])


class BlackBox:
    """The PTM with one set of examples."""

    def __init__(self, address: str, task: method_pb2.TaskSettings, examples: Sequence[tuple[str, int]]) -> None:
        # An address with commas is a list of addresses of the same model.
        self._stub = PtmServiceStub(connect(address.partition(",")[0]))
        if self._stub.Describe(ptm.DescribeRequest()).output not in (
            ptm.OUTPUT_LABEL_LOGITS,
            ptm.OUTPUT_LABEL_LOGPROBS,
        ):
            raise ValueError("this client needs a score for each class")
        asked = ptm.Task(template=task.template, classes=task.classes)
        task_id = self._stub.RegisterTask(ptm.RegisterTaskRequest(task=asked)).task_id
        self._labels, self._classes = [label for _, label in examples], len(task.classes)
        prompt = task.latent
        self._projection, self._offsets = prompt.projection, prompt.offsets
        texts = [ptm.Example(text=text) for text, _ in examples]
        kept = ptm.ExampleSet(examples=texts, prompt_tokens=prompt.projection.tokens)
        request = ptm.RegisterExamplesRequest(task_id=task_id, examples=kept)
        self._examples_id = self._stub.RegisterExamples(request).examples_id

    def losses(self, candidates: Sequence[Vector]) -> list[tuple[float, int]]:
        """Returns for each candidate the sum of its losses, and the number of examples that it classifies correctly."""
        dim = len(candidates[0]) - self._offsets
        data = b"".join(struct.pack(f"<{dim}f", *z[:dim]) for z in candidates)
        shape = [len(candidates), dim]
        z = tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=shape, data=data)
        latent = prompt_pb2.LatentPrompts(z=z, projection=self._projection)
        key = secrets.token_hex(16)  # a retry would send the same key
        request = ptm.ScoreRequest(examples_id=self._examples_id, latent=latent, idempotency_key=key)
        answer = self._stub.Score(request)
        rows = list(struct.iter_unpack(f"<{self._classes}f", answer.scores.data))  # [P x B] rows of K scores
        found = []
        for index, candidate in enumerate(candidates):
            offsets = candidate[dim:] or [0.0] * self._classes
            own = rows[index * len(self._labels) : (index + 1) * len(self._labels)]
            shifted = [[score + 0.25 * offset for score, offset in zip(row, offsets, strict=True)] for row in own]
            mine = list(zip(shifted, self._labels, strict=True))
            hits = sum(scores[label] == max(scores) for scores, label in mine)
            found.append((sum(cross_entropy(scores, label) for scores, label in mine), hits))
        return found


class TaskStream:
    """A call of TakePart, with a thread that sends heartbeats."""

    def __init__(self, stub: CoordinatorServiceStub, run: pb.JoinResponse) -> None:
        self._requests: queue.SimpleQueue[pb.TakePartRequest | None] = queue.SimpleQueue()
        self._requests.put(pb.TakePartRequest(opening=pb.Opening(session=run.session)))
        self._responses = stub.TakePart(iter(self._requests.get, None))
        self._seconds = run.heartbeat.ToTimedelta().total_seconds()
        self._finished = threading.Event()
        self.counted = 0
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        while not self._finished.wait(self._seconds):
            self._requests.put(pb.TakePartRequest(heartbeat=pb.Heartbeat()))

    def __iter__(self) -> Iterator[pb.TakePartResponse]:
        for response in self._responses:
            self.counted += response.receipt == pb.RECEIPT_COUNTED
            if response.HasField("finished"):
                self._finished.set()
                self._requests.put(None)
            yield response

    def submit(self, header: pb.UpdateHeader) -> None:
        """Sends an update; its receipt comes with one of the next responses."""
        self._requests.put(pb.TakePartRequest(update=header))


def tasks(stream: Iterable[pb.TakePartResponse]) -> Iterator[tuple[pb.TaskHeader, dict[str, Vector]]]:
    """Yields each task with its arrays, flat."""
    header, data = pb.TaskHeader(), b""
    for response in stream:
        kind = response.WhichOneof("event")
        if kind not in ("task", "chunk"):
            continue
        if kind == "task":
            header, data = response.task, response.task.arrays.data
        elif kind == "chunk":
            data += response.chunk.data
        if len(data) == header.arrays.total_bytes:
            if google_crc32c.value(data) != header.arrays.crc32c:
                raise ValueError("the arrays were corrupted in transit")
            arrays: dict[str, Vector] = {}
            for spec in header.arrays.tensors:
                size = math.prod(spec.shape)
                arrays[spec.name], data = struct.unpack_from(f"<{size}f", data), data[4 * size :]
            yield header, arrays


def add_losses(bundle: tensor_pb2.TensorBundle, losses: Vector) -> None:
    """Adds the array of losses, which is small enough to travel in the bundle itself."""
    bundle.data = struct.pack(f"<{len(losses)}f", *losses)
    bundle.tensors.add(name="losses", dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[len(losses)])
    bundle.total_bytes, bundle.crc32c = len(bundle.data), google_crc32c.value(bundle.data)


def main(address: str, path: str) -> int:
    """Takes part in a run until its end, and returns the number of counted updates."""
    with open(path, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.strip()]
    coordinator = CoordinatorServiceStub(connect(address))
    run = coordinator.Join(
        pb.JoinRequest(
            protocol_version=1,
            client_id=f"from-protos-{secrets.token_hex(4)}",
            client_key=secrets.token_hex(16),
            codecs=[pb.CODEC_FLOAT32],
            examples=len(lines) - len(lines[::DEV]),
        )
    )
    method = run.method.fed_cma
    if run.method.WhichOneof("method") != "fed_cma" or method.candidates_sent or method.expansion_sent:
        raise ValueError('this client supports fed-cma only with step = "ranks" and a diagonal covariance')
    if run.sampling.batch_examples:
        raise ValueError("this client supports only runs without method.batch_examples")
    examples = [(line["text"], list(run.task.labels).index(line["label"])) for line in lines]
    dev, train = examples[::DEV], [one for index, one in enumerate(examples) if index % DEV]
    on_dev, on_train = (BlackBox(run.ptm_address, run.task, part) for part in (dev, train))
    population, stream = run.method.fed_cma.population, TaskStream(coordinator, run)
    for task, arrays in tasks(stream):
        mean = arrays["mean"]
        ((dev_loss, dev_correct),) = on_dev.losses([mean])
        losses: list[float] = []
        if task.id.phase == pb.PHASE_UPDATE:
            drawn = normals(task.seed, population * len(mean))
            rows = [drawn[start : start + len(mean)] for start in range(0, len(drawn), len(mean))]
            candidates = [[m + s * x for m, s, x in zip(mean, arrays["scale"], row, strict=True)] for row in rows]
            unit = 2.0 ** (math.frexp(len(train))[1] - 1)  # the largest power of two that is at most the weight
            losses = [loss / unit for loss, _ in on_train.losses(candidates)]
        header = pb.UpdateHeader(id=task.id, weight=len(train))
        header.measurement.dev_loss_sum, header.measurement.dev_correct = dev_loss, int(dev_correct)
        header.measurement.dev_examples = len(dev)
        header.measurement.queries = len(dev) + len(losses) * len(train)
        if losses:
            add_losses(header.arrays, losses)
        stream.submit(header)
    return stream.counted


if __name__ == "__main__":
    print(f"{main(*sys.argv[1:])} updates were counted")
