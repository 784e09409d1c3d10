"""Launches that are recorded, and repeated as one: a GPU computes a small micro-batch in less time than Python takes to
launch all of its kernels.

What the body launches for a shape that comes again is recorded once, as a CUDA graph. A search asks for the same shapes
in every generation. The same kernels run, and so the bits are the same.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

log = logging.getLogger(__name__)

Launch: TypeAlias = Callable[[], object]
Record: TypeAlias = Callable[[Launch], Launch]
"""Gives what does again whatever the given one does, on the same memory."""

SHAPES = 256
"""That are remembered; the least recently used are forgotten first."""


class GraphedBody:
    """A model's body, asked as torch's is, in any threads. Inputs of more than `most_tokens`, and those that come with
    anything else, go to the body itself.

    All graphs read from one place and write to another, and share what memory they need between: no two run at once.
    """

    def __init__(self, body: Any, most_tokens: int, record: Record) -> None:
        self._body, self._most_tokens, self._record = body, most_tokens, record
        self._lock = Lock()
        self._inputs = self._outputs = torch.empty(0)
        """`[most_tokens, D]`, once something was recorded."""
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
            if launch := self._shapes.get(shape):
                self._shapes.move_to_end(shape)
                inputs, outputs = self._buffers(shape)
                inputs.copy_(inputs_embeds)
                launch()
                return BaseModelOutput(outputs.clone())
            # Also what is recorded next is computed as it is first: what a thread needs for its first launches cannot
            # be made while they are recorded.
            found = self._body(inputs_embeds=inputs_embeds)
            self._record_if_repeated(shape, inputs_embeds, found.last_hidden_state)
            return found

    def _record_if_repeated(self, shape: torch.Size, inputs: Tensor, hidden: Tensor) -> None:
        """Records what has come before."""
        if shape not in self._shapes:
            self._shapes[shape] = None
            if len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
            return
        if not len(self._inputs):
            self._inputs, self._outputs = (
                each.new_empty(self._most_tokens, each.shape[2]) for each in (inputs, hidden)
            )
        source, target = self._buffers(shape)
        try:
            self._shapes[shape] = self._record(lambda: target.copy_(self._body(inputs_embeds=source).last_hidden_state))
        except RuntimeError as error:  # the body does what cannot be recorded, or memory ends
            log.warning("launches are recorded no longer: %s", str(error).partition("\n")[0])
            self._most_tokens = 0

    def _buffers(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Where inputs of a shape are read from, and hidden states written to."""
        count, tokens, _ = shape
        inputs, outputs = (each[: count * tokens].view(count, tokens, -1) for each in (self._inputs, self._outputs))
        return inputs, outputs


def cuda_recorder() -> Record:
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
