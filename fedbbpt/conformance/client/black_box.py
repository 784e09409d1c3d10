"""The fake PTM service: its scores are hashes of prompt, text and class, so every right answer is known.

It notes each pair that a client has asked, and whatever the contract of ptm.proto forbids a caller.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client.cases import Case, Fault
from fedbbpt.conformance.client.findings import Findings
from fedbbpt.conformance.client.material import change
from fedbbpt.errors import InvalidRequest, InvalidTensor, UnknownExamples, UnknownTask
from fedbbpt.ptm.v1 import ptm_pb2 as ptm
from fedbbpt.ptm.v1.ptm_pb2_grpc import PtmServiceServicer
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import prompt_pb2, tensor_pb2

REVISION = "conformance-1"
SPREAD, LARGE = 6.0, 2.0e5
"""Scores are from -SPREAD / 2 to SPREAD / 2, or, if they are large, from -LARGE / 2 to LARGE / 2."""
Happen = Callable[[Fault], Any]
"""Lets a fault happen, in the trial; awaited."""


def score(prompt: bytes, text: str, name: str, kind: Literal["any", "ties", "large"] = "any") -> np.float32:
    """Returns the score of a class for one pair."""
    digest = hashlib.sha256(prompt + b"\0" + text.encode() + b"\0" + name.encode()).digest()
    number = (LARGE if kind == "large" else SPREAD) * (int.from_bytes(digest[:4], "little") / 2.0**32 - 0.5)
    return np.float32(round(number / 2) if kind == "ties" else number)


class BlackBox(PtmServiceServicer):
    """Implements PtmService for one client, in one trial."""

    def __init__(self, case: Case, run: pb.JoinResponse, texts: Mapping[str, int], findings: Findings) -> None:
        self._case, self._run, self._texts, self._findings = case, run, texts, findings
        self._tasks: dict[str, ptm.Task] = {}
        self._handles: dict[str, tuple[ptm.Task, ptm.ExampleSet]] = {}
        self._answers: dict[str, tuple[bytes, ptm.ScoreResponse]] = {}
        self.faults: list[Fault] = []
        """Those that are still to happen."""
        self.happen: Happen | None = None
        self.asked: dict[bytes, set[str]] = {}
        """The texts on which each prompt was scored since the last task."""
        self.ever: dict[bytes, set[str]] = {}
        """The texts on which each prompt was ever scored."""
        self._registered: dict[str, list[str]] = {}
        self.order: list[bytes] = []
        """The prompts in the order in which they were asked first since the last task."""
        self.pairs = 0
        """Number of pairs that were scored since the last task."""
        self.card = ptm.DescribeResponse(
            model="conformance",
            revision=REVISION,
            family="masked-lm",
            prompt_kinds=[kind for kind in prompt_pb2.PromptKind.values() if kind],
            injections=[kind for kind in prompt_pb2.Injection.values() if kind],
            max_tokens=128,
            max_prompts=64,
            max_examples=1024,
            max_message_bytes=4 << 20,
            embedding_width=16,
            output=ptm.OUTPUT_LABEL_LOGITS,
            min_examples=1,
            max_latent=1e6,
            max_vector_norm=1e6,
        )
        change(self.card, case.card)

    def begin(self) -> None:
        """Forgets what was asked for earlier tasks."""
        self.asked, self.order, self.pairs = {}, [], 0

    def forget(self) -> None:
        """Forgets all handles and tasks, as a service does that was restarted."""
        self._tasks.clear()
        self._handles.clear()

    def scores(self, prompt: bytes, texts: list[str], names: list[str] | None = None) -> npt.NDArray[np.float32]:
        """Returns the scores `[B, K]` of a prompt."""
        names = names or [*self._run.task.classes]
        kind = self._case.scores
        return np.array([[score(prompt, text, name, kind) for name in names] for text in texts], np.float32)

    async def _meet(self, at: str) -> None:
        due = next((fault for fault in self.faults if fault.at == at), None)
        if due is None or self.happen is None:
            return
        self.faults.remove(due)
        await self.happen(due)

    async def Describe(self, request: ptm.DescribeRequest, context: Any) -> ptm.DescribeResponse:
        await self._meet("describe")
        return self.card

    async def RegisterTask(self, request: ptm.RegisterTaskRequest, context: Any) -> ptm.RegisterTaskResponse:
        task, wanted = request.task, self._run.task
        if task.template != wanted.template or list(task.classes) != [*wanted.classes, *wanted.columns]:
            self._findings.broken("RegisterTask has another template or other classes than Join announced")
        name = "task-" + hashlib.sha256(task.SerializeToString(deterministic=True)).hexdigest()[:16]
        self._tasks[name] = task
        return ptm.RegisterTaskResponse(task_id=name, label_tokens=[1] * len(task.classes))

    async def RegisterExamples(
        self, request: ptm.RegisterExamplesRequest, context: Any
    ) -> ptm.RegisterExamplesResponse:
        if request.task_id not in self._tasks:
            raise UnknownTask(f"no task {request.task_id!r}", where="task_id", fix="register the task first")
        name = self._register(self._tasks[request.task_id], request.examples)
        return ptm.RegisterExamplesResponse(
            examples_id=name, count=len(request.examples.examples), truncated_examples=0, truncated_tokens=0
        )

    def _register(self, task: ptm.Task, examples: ptm.ExampleSet) -> str:
        rows = examples.examples
        if any(row.HasField("label") for row in rows) and self.card.output != ptm.OUTPUT_LOSS_ONLY:
            self._findings.broken("labels were sent to a PTM service that does not need them")
        strange = [row.text for row in rows if row.text not in self._texts]
        if strange:
            self._findings.broken(f"the text {strange[0]!r} is not in the data")
        room = self._room()
        if examples.prompt_tokens != room:
            self._findings.broken(f"examples leave {examples.prompt_tokens} tokens free; expected {room}")
        if not 0 < len(rows) <= self.card.max_examples:
            self._findings.broken(f"{len(rows)} examples in a handle; at most {self.card.max_examples} are allowed")
        content = task.SerializeToString(deterministic=True) + examples.SerializeToString(deterministic=True)
        name = "examples-" + hashlib.sha256(content).hexdigest()[:16]
        self._handles[name] = task, examples
        self._registered[name] = [row.text for row in rows]
        return name

    def handles(self) -> list[list[str]]:
        """Returns the texts of each handle that there ever was."""
        return [*self._registered.values()]

    def _room(self) -> int:
        task = self._run.task
        rooms = {
            "latent": task.latent.projection.tokens,
            "text": task.text.prompt_tokens,
            "deep": task.deep.tokens,
            "none": task.none.room,
        }
        return max(rooms[task.WhichOneof("prompt") or "none"], task.view_tokens)

    async def Score(self, request: ptm.ScoreRequest, context: Any) -> ptm.ScoreResponse:
        await self._meet("score")
        content, key = request.SerializeToString(deterministic=True), request.idempotency_key
        if len(key) > 64:
            self._findings.broken("an idempotency key has more than 64 characters")
        if key and key in self._answers:
            before, answer = self._answers[key]
            if before != content:
                # With the same key, a call may name the examples in another way.
                self._findings.broken("two different calls of Score have the same idempotency key")
            return answer
        if request.WhichOneof("examples") == "inline":
            name = self._register(request.inline.task, request.inline.examples)
        else:
            name = request.examples_id
        if name not in self._handles:
            raise UnknownExamples(
                f"no examples {name!r}", where="examples_id", fix="register again, or send them inline"
            )
        task, examples = self._handles[name]
        prompts = self._prompts(request, len(examples.examples))
        if not 0 < len(prompts) <= self.card.max_prompts:
            raise InvalidTensor(f"{len(prompts)} prompts", where="prompts", fix=f"1 to {self.card.max_prompts}")
        texts = [row.text for row in examples.examples]
        found = np.stack([self.scores(each, texts, [*task.classes]) for each in prompts])
        for each in prompts:
            if each not in self.asked:
                self.order.append(each)
            self.asked.setdefault(each, set()).update(texts)
            self.ever.setdefault(each, set()).update(texts)
        self.pairs += len(prompts) * len(texts)
        answer = ptm.ScoreResponse(revision=self.card.revision, examples_id=name)
        answer.usage.queries = len(prompts) * len(texts)
        if self.card.output == ptm.OUTPUT_LABEL_ARGMAX:
            _fill(answer.choices, found.argmax(axis=2).astype("<i4"), tensor_pb2.D_TYPE_INT32)
        else:
            _fill(answer.scores, found, tensor_pb2.D_TYPE_FLOAT32)
        if key:
            self._answers[key] = content, answer
        self._findings.changed()
        return answer

    def _prompts(self, request: ptm.ScoreRequest, count: int) -> list[bytes]:
        """Returns the bytes of each prompt."""
        kind, task = request.WhichOneof("prompts"), self._run.task
        if kind == "latent" and task.WhichOneof("prompt") == "latent":
            if request.latent.projection != task.latent.projection:
                self._findings.broken("LatentPrompts have another projection than Join announced")
            return _rows(request.latent.z, [task.latent.dim - task.latent.offsets])
        if kind == "text":
            return [text.encode() for text in request.text.texts]
        if kind == "deep":
            deep = task.deep
            return _rows(request.deep.prefixes, [deep.layers, 2, deep.heads, deep.tokens, deep.width])
        raise InvalidRequest(f"prompts of kind {kind}", where="prompts", fix="the kind that JoinResponse.task names")

    async def Release(self, request: ptm.ReleaseRequest, context: Any) -> ptm.ReleaseResponse:
        return ptm.ReleaseResponse()

    async def GetUsage(self, request: ptm.GetUsageRequest, context: Any) -> ptm.GetUsageResponse:
        return ptm.GetUsageResponse(usage=ptm.Usage(queries=self.pairs), handles=len(self._handles))


def _fill(tensor: tensor_pb2.Tensor, array: npt.NDArray[Any], dtype: tensor_pb2.DType.ValueType) -> None:
    tensor.dtype = dtype
    tensor.shape[:] = array.shape
    tensor.data = array.tobytes()


def _rows(tensor: tensor_pb2.Tensor, shape: list[int]) -> list[bytes]:
    """Returns the bytes of each prompt of a float32 tensor. Raises InvalidTensor for another type or shape."""
    if tensor.dtype != tensor_pb2.D_TYPE_FLOAT32 or list(tensor.shape[1:]) != shape or not tensor.shape:
        what = f"a tensor of type {tensor.dtype} and shape {list(tensor.shape)}"
        raise InvalidTensor(what, where="prompts", fix=f"float32 [P, {', '.join(map(str, shape))}]")
    count, size = tensor.shape[0], 4 * int(np.prod(shape))
    if len(tensor.data) != count * size:
        raise InvalidTensor(f"{len(tensor.data)} bytes", where="prompts", fix=f"{count * size}")
    return [tensor.data[start : start + size] for start in range(0, len(tensor.data), size)]
