"""Launches that are recorded, and repeated as one: a GPU computes a small micro-batch in less time than Python takes to
launch all of its kernels.

What the body launches for a shape that comes again is recorded once, as a CUDA graph. A search asks for the same shapes
in every generation. The same kernels run, and so the bits are the same.
"""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

Launch: TypeAlias = Callable[[], object]
Record: TypeAlias = Callable[[Launch], Launch]
"""Gives what does again whatever the given one does, on the same memory."""

SHAPES = 256
"""That are remembered; the least recently used are forgotten first."""


class Graphs:
    """A model's body, asked as torch's is, in any threads. Inputs of more than `most_tokens`, and those that come with
    anything else, go to the body itself.

    All graphs read from one place and write to another, and share what memory they need between: no two run at once.
    """

    def __init__(self, body: Any, most_tokens: int, record: Record) -> None:
        self._body, self._most_tokens, self._record = body, most_tokens, record
        self._lock = Lock()
        self._inputs: Tensor | None = None
        self._outputs: Tensor | None = None
        self._shapes: OrderedDict[torch.Size, Launch | None] = OrderedDict()
        """None: seen once, and not recorded yet."""

    @property
    def config(self) -> Any:
        return self._body.config

    def __call__(self, *, inputs_embeds: Tensor, **others: Any) -> Any:
        shape = inputs_embeds.shape
        if others or shape[0] * shape[1] > self._most_tokens:
            return self._body(inputs_embeds=inputs_embeds, **others)
        with self._lock:
            if shape not in self._shapes:
                self._shapes[shape] = None
                if len(self._shapes) > SHAPES:
                    self._shapes.popitem(last=False)
                return self._body(inputs_embeds=inputs_embeds)
            self._shapes.move_to_end(shape)
            return BaseModelOutput(self._launch(inputs_embeds))

    def _launch(self, given: Tensor) -> Tensor:
        if self._inputs is None or self._outputs is None:
            hidden = self._body(inputs_embeds=given).last_hidden_state
            self._inputs, self._outputs = (each.new_empty(self._most_tokens, each.shape[2]) for each in (given, hidden))
        count, tokens, _ = given.shape
        inputs, outputs = (each[: count * tokens].view(count, tokens, -1) for each in (self._inputs, self._outputs))
        launch = self._shapes[given.shape]
        if launch is None:
            launch = self._record(lambda: outputs.copy_(self._body(inputs_embeds=inputs).last_hidden_state))
            self._shapes[given.shape] = launch
        inputs.copy_(given)
        launch()
        return outputs.clone()


def recorder() -> Record:
    """CUDA's. What it records shares the memory between inputs and outputs."""
    first = torch.cuda.CUDAGraph()
    with torch.cuda.graph(first):
        torch.zeros(1, device="cuda")

    def record(launch: Launch) -> Launch:
        graph = torch.cuda.CUDAGraph()
        # The first graph is never launched, and keeps the memory where all others are forgotten. Other threads go on
        # meanwhile: only what this one does is recorded, and restricted.
        with torch.cuda.graph(graph, pool=first.pool(), capture_error_mode="thread_local"):
            launch()
        again: Launch = graph.replay
        return again

    return record
