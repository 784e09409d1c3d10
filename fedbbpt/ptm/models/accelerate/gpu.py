"""What makes a body fast on a GPU, as far as measuring at the start says that it pays: fused layers, and graphs."""

import logging
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from fedbbpt.ptm.models.accelerate.cuda_graphs import GraphedBody, Record
from fedbbpt.ptm.models.accelerate.fused_layers import fuse
from fedbbpt.ptm.models.text.split_model import SplitModel

log = logging.getLogger(__name__)

MIN_FUSION_SPEEDUP = 1.02
"""What layers have to gain to be fused."""
MIN_GRAPH_SPEEDUP = 0.98
"""What a graph may lose: it spares Python the launches, so that another thread gets on."""
PROBE_TOKENS = 128
FUSION_PROBE_TOKENS, MAX_GRAPH_TOKENS = 2**15, 2**16
"""Tokens: of the inputs that layers are measured with, and of those that are recorded at most."""
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""How far hidden states may lie from the plain layers', as a share of the largest of those."""


def accelerate_body(model: SplitModel, probe: Callable[[int, int], Tensor], record: Record) -> SplitModel:
    """`probe(count, tokens)` gives inputs like the model's own `[count, tokens, D]`.

    For models that are asked for all of an input at once. Causal ones go on from keys and values that each layer has
    kept: layers would be compiled for each state of those, and graphs hold none.
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
        for shape in ((1, length), (2, length), (16, 1)):  # of one input, and of one token, there is code of its own
            model.run_body(probe(*shape))
        apart = float((fused - plain).abs().max() / plain.abs().max())
        gain = seconds / _seconds(model, large)
    except Exception as error:  # compilers raise whatever they like: there may be none on the machine
        log.warning("layers are not fused: %s", str(error).strip().partition("\n")[0] or type(error).__name__)
        undo()
        return
    log.info("fused layers are %.2f times as fast, and apart by %.1g of the largest number", gain, apart)
    if gain < MIN_FUSION_SPEEDUP or not apart <= TOLERANCE[model.dtype]:
        undo()


def _graph_if_faster(model: SplitModel, probe: Callable[[int, int], Tensor], length: int, record: Record) -> Any:
    """The body with graphs up to the size where one is slower."""
    most, tokens = 0, length
    while tokens <= MAX_GRAPH_TOKENS:
        inputs = probe(tokens // length, length)
        graphs = replace(model, body=GraphedBody(model.body, tokens, record))
        if _seconds(model, inputs) < MIN_GRAPH_SPEEDUP * _seconds(graphs, inputs):
            break
        most, tokens = tokens, 2 * tokens
    log.info("launches for up to %d tokens are recorded", most)
    return GraphedBody(model.body, most, record) if most else model.body


def _seconds(model: SplitModel, inputs: Tensor) -> float:
    def read() -> float:
        started = perf_counter()
        model.run_body(inputs)[-1, -1, -1].item()  # waits for the device
        return perf_counter() - started

    return min([read() for _ in range(8)][2:])  # the first two warm up, and record
