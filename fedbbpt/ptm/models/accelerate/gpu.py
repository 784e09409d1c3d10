"""Makes a model's body faster on a GPU by fused layers and CUDA graphs, if measurements at start-up show a gain."""

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fedbbpt.errors import first_line
from fedbbpt.ptm.models.accelerate.cuda_graphs import GraphedBody, Record
from fedbbpt.ptm.models.accelerate.fused_layers import fuse
from fedbbpt.ptm.models.text.split_model import SplitModel

log = logging.getLogger(__name__)

MIN_FUSION_SPEEDUP = 1.02
"""Least speed-up of fused layers for which they are used."""
MIN_GRAPH_SPEEDUP = 0.98
"""Least speed-up of a graph for which it is used. A graph may be slightly slower: it spares Python the launches, so
that another thread can run meanwhile."""
PROBE_TOKENS = 128
"""Tokens of each input in the measurements."""
FUSION_PROBE_TOKENS, MAX_GRAPH_TOKENS = 2**15, 2**16
"""Tokens of the batch that fused layers are measured with, and of the largest batch that is recorded as a graph."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Largest difference between the hidden states of fused and plain layers, relative to the largest of the latter."""


def accelerate_body(model: SplitModel, probe: Callable[[int, int], Tensor], record: Record) -> SplitModel:
    """Returns the model with a faster body, for families that compute all of an input at once.

    Causal models are excluded, since they continue from cached keys and values: their layers would be compiled anew for
    each size of the cache, and a graph cannot hold one.

    Args:
        model: The model, whose layers may be replaced in place.
        probe: Returns random inputs of the first layer, `[count, tokens, D]`, for a count and a number of tokens.
        record: Records launches; see `cuda_graphs`.
    """
    length = min(PROBE_TOKENS, probe(1, PROBE_TOKENS).shape[1])
    _fuse_if_faster(model, probe, length)
    return replace(model, body=_graph_if_faster(model, probe, length, record))


def _fuse_if_faster(model: SplitModel, probe: Callable[[int, int], Tensor], length: int) -> None:
    large = probe(FUSION_PROBE_TOKENS // length, length)
    plain, seconds = model.run_body(large), _seconds(model, large)
    try:
        undo = fuse(model.body)
    except LookupError:
        return
    try:
        fused = model.run_body(large)
        for shape in ((1, length), (2, length), (16, 1)):  # sizes of 1 are compiled separately
            model.run_body(probe(*shape))
        difference = float((fused - plain).abs().max() / plain.abs().max())
        speedup = seconds / _seconds(model, large)
    except Exception as error:  # compilers raise errors of any kind, for example if the machine has none
        log.warning("layers are not fused: %s", first_line(error))
        undo()
        return
    log.info("fused layers are %.2f times as fast, with a relative difference of %.1g", speedup, difference)
    if speedup < MIN_FUSION_SPEEDUP or not difference <= TOLERANCE[model.dtype]:
        undo()


def _graph_if_faster(model: SplitModel, probe: Callable[[int, int], Tensor], length: int, record: Record) -> Any:
    """Returns the body with graphs for batches up to the size at which a graph is slower."""
    max_tokens, tokens = 0, length
    while tokens <= MAX_GRAPH_TOKENS:
        inputs = probe(tokens // length, length)
        graphs = replace(model, body=GraphedBody(model.body, tokens, record))
        if _seconds(model, inputs) < MIN_GRAPH_SPEEDUP * _seconds(graphs, inputs):
            break
        max_tokens, tokens = tokens, 2 * tokens
    log.info("launches for up to %d tokens are recorded", max_tokens)
    return GraphedBody(model.body, max_tokens, record) if max_tokens else model.body


def _seconds(model: SplitModel, inputs: Tensor) -> float:
    def read() -> float:
        started = perf_counter()
        model.run_body(inputs)[-1, -1, -1].item()  # waits for the device
        return perf_counter() - started

    return min([read() for _ in range(8)][2:])  # the first two warm up, and record
