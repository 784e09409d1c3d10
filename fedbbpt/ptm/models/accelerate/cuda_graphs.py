"""Records the kernel launches of a model's body as CUDA graphs, one for each shape of input, and replays them.

A GPU computes a small micro-batch in less time than Python takes to launch its kernels one by one; a graph launches
them all at once. Recording pays because a search sends the same shapes in every generation: a shape is recorded when it
occurs for the second time. The same kernels run, so results are bit-identical.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from fedbbpt.errors import first_line

log = logging.getLogger(__name__)

Launch: TypeAlias = Callable[[], object]
Record: TypeAlias = Callable[[Launch], Launch]
"""Runs a launch and returns a function that repeats it, on the same memory."""

SHAPES = 256
"""Number of shapes with a graph; the least recently used is forgotten first."""


class GraphedBody:
    """A model's body with graphs. It is called like the body, in any threads.

    All graphs read from one buffer and write to another, and share the memory between them, so that no two run at once.
    """

    def __init__(self, body: Any, most_tokens: int, record: Record) -> None:
        """Inputs of more than `most_tokens` tokens, and calls with other arguments, go to the body itself."""
        self._body, self._most_tokens, self._record = body, most_tokens, record
        self._lock = Lock()
        self._inputs = self._outputs = torch.empty(0)
        """Buffers `[most_tokens, D]`; empty until a shape is recorded."""
        self._shapes: OrderedDict[torch.Size, Launch | None] = OrderedDict()
        """The graph of each shape; None if it has occurred once and is not recorded yet."""

    @property
    def config(self) -> Any:
        """The body's configuration."""
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
            # The body also runs before a recording: a thread's first launches initialise libraries, which is not
            # possible while they are recorded.
            output = self._body(inputs_embeds=inputs_embeds)
            self._record_if_repeated(shape, inputs_embeds, output.last_hidden_state)
            return output

    def _record_if_repeated(self, shape: torch.Size, inputs: Tensor, hidden: Tensor) -> None:
        """Records a shape that has occurred before."""
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
        except RuntimeError as error:  # the body does something that cannot be recorded, or memory is full
            log.warning("launches are no longer recorded: %s", first_line(error))
            self._most_tokens = 0

    def _buffers(self, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Returns the parts of the buffers that inputs of a shape and their hidden states take."""
        count, tokens, _ = shape
        inputs, outputs = (each[: count * tokens].view(count, tokens, -1) for each in (self._inputs, self._outputs))
        return inputs, outputs


def cuda_recorder() -> Record:
    """Returns a Record for CUDA, whose graphs share the memory between inputs and outputs."""
    first = torch.cuda.CUDAGraph()
    with torch.cuda.graph(first):
        torch.zeros(1, device="cuda")

    def record(launch: Launch) -> Launch:
        graph = torch.cuda.CUDAGraph()
        # The first graph is never launched: it keeps the memory alive when all others are forgotten. Other threads may
        # use the GPU meanwhile: only this thread's launches are recorded and restricted.
        with torch.cuda.graph(graph, pool=first.pool(), capture_error_mode="thread_local"):
            launch()
        replay: Launch = graph.replay
        return replay

    return record
