"""Computes a text encoder's layers with ONNX Runtime or OpenVINO instead of torch, on the CPU.

The layers are exported to ONNX once, at start-up, from the inputs of the first layer to the last hidden states, for any
number and length of inputs. Their hidden states are compared with torch's before the runtime is used.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.host.extras import require_package
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.split_model import SplitModel
from fedbbpt.types import Array, Precision, Runtime

ENCODERS = frozenset({"dual-encoder", "masked-lm", "sequence-classifier"})
"""The families whose layers other runtimes than torch can compute."""
TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.BFLOAT16: 0.1}
"""Largest difference between the runtime's hidden states and torch's, relative to the largest of the latter."""
MAX_PROBE_TOKENS = 1024
"""Tokens of the longest input that is compared; longer ones would take too long."""

Layers: TypeAlias = Callable[[Array], Array]
"""Computes the last hidden states from inputs of the first layer, both float32 `[N, T, D]`. Thread-safe."""

_OPSET = 17  # the first that has LayerNormalization
_INPUT, _OUTPUT = "inputs", "hidden"
_FIX = "--engine torch"


def check_runtime(runtime: Runtime, precision: Precision, family: str, model: str) -> None:
    """Raises InvalidInput if the runtime is not installed, or does not support the family or the precision."""
    if runtime is Runtime.TORCH:
        return
    if family not in ENCODERS:  # exported layers have no cache of keys and values, which causal models continue from
        raise InvalidInput(f"{runtime} computes text encoders only, and this is a {family}", where=model, fix=_FIX)
    for package in (runtime.value, "onnx"):  # torch's exporter needs the latter
        require_package(package, runtime.value, where=f"--engine {runtime}", alternative=_FIX)
    if precision is Precision.BFLOAT16 and not _has_bfloat16(runtime):
        raise InvalidInput(
            f"{runtime} does not support {precision} on this machine", where=model, fix=f"float32, or {_FIX}"
        )


def export_body(model: SplitModel, checkpoint: Checkpoint, threads: int) -> SplitModel:
    """Returns the model with a body that `checkpoint.runtime` computes.

    Args:
        model: The model, whose weights in torch are freed.
        checkpoint: The checkpoint that it comes from.
        threads: Calls that run in parallel, each on one thread.

    Raises:
        InvalidInput: The runtime cannot compute the layers, or its hidden states differ from torch's.
    """
    name, runtime, precision = checkpoint.name, checkpoint.runtime, checkpoint.precision
    longest = min(checkpoint.max_tokens, MAX_PROBE_TOKENS)
    try:
        with torch.inference_mode(), TemporaryDirectory() as folder:
            probes = [_probe(model, *shape) for shape in ((16, 1), (3, 7), (2, longest // 2), (1, longest))]
            if not _is_bidirectional(model, probes[-1]):
                raise InvalidInput(
                    f"{runtime} computes text encoders only, and this model reads from left to right",
                    where=name,
                    fix=_FIX,
                )
            path = Path(folder, "layers.onnx")
            _export(model.body, probes[1], path)
            layers = _onnxruntime(path) if runtime is Runtime.ONNXRUNTIME else _openvino(path, precision, threads)
            difference = np.max([_relative_error(layers, model, probe) for probe in probes])
    except InvalidInput:
        raise
    except Exception as error:  # exporters, runtimes and the models' own code raise errors of any kind
        what = f"{runtime} cannot compute this model: {first_line(error)}"
        raise InvalidInput(what, where=name, fix=_FIX) from None
    if not difference <= TOLERANCE[precision]:  # true for NaN as well
        what = f"{runtime} gives other hidden states than torch, with a relative difference of {difference:.1g}"
        raise InvalidInput(what, where=name, fix=_FIX)
    return model.with_body(_ExportedBody(layers))


@dataclass(frozen=True, slots=True)
class _ExportedBody:
    """A body that is called like torch's."""

    layers: Layers

    def __call__(self, *, inputs_embeds: Tensor) -> BaseModelOutput:
        return BaseModelOutput(torch.from_numpy(self.layers(inputs_embeds.contiguous().numpy())))


def _onnxruntime(path: Path) -> Layers:
    from fedbbpt.ptm.models.accelerate.onnx_session import open_session  # only now: it needs an optional package

    session = open_session(path)

    def layers(inputs: Array) -> Array:
        hidden: Array = session.run([_OUTPUT], {_INPUT: inputs})[0]
        return hidden

    return layers


def _openvino(path: Path, precision: Precision, threads: int) -> Layers:
    """Loads layers into OpenVINO, which computes calls in threads of its own, one for each stream."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BFLOAT16 else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # with pinning, all services of a machine take the same cores
        # OpenVINO's fused attention is wrong for all inputs once its first one had a single token, and is no faster.
        "SNIPPETS_MODE": "DISABLE",
        "CPU_RUNTIME_CACHE_CAPACITY": 64,  # kernels; with the default of 5000, memory grows with each shape
    }
    requests = _Requests(_import_openvino().Core().compile_model(str(path), "CPU", settings))

    def layers(inputs: Array) -> Array:
        hidden: Array = requests.of_this_thread.infer([inputs], share_inputs=True)[0]
        return hidden

    return layers


class _Requests(threading.local):
    """One inference request for each thread, made at its first call: a request runs one inference at a time."""

    def __init__(self, compiled: Any) -> None:
        self.of_this_thread = compiled.create_infer_request()


def _import_openvino() -> Any:
    """Imports OpenVINO without `openvino_telemetry`, which would report the import to its makers."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None makes its import fail
    import openvino

    return openvino


def _has_bfloat16(runtime: Runtime) -> bool:
    if runtime is not Runtime.OPENVINO:
        return False
    return "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _export(body: Any, probe: Tensor, path: Path) -> None:
    names = {0: "count", 1: "tokens"}
    with warnings.catch_warnings():
        # The older exporter needs no further package. If tracing loses something, the comparison with torch finds it.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]  # not in its __all__
        torch.onnx.export(
            _TensorToTensor(body).eval(),
            (probe,),
            str(path),
            input_names=[_INPUT],
            output_names=[_OUTPUT],
            dynamic_axes={_INPUT: names, _OUTPUT: names},
            opset_version=_OPSET,
            dynamo=False,
        )


class _TensorToTensor(nn.Module):
    """The body as a module from tensor to tensor, as the exporter requires."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.body(inputs_embeds=inputs).last_hidden_state
        return hidden


def _probe(model: SplitModel, count: int, tokens: int) -> Tensor:
    """Returns inputs of the first layer for random words, `[count, tokens, D]`."""
    ids = seeds.rng(0, "runtime", count, tokens).integers(0, model.word_embeddings.num_embeddings, (count, tokens))
    return model.apply_embedding_block(model.word_embeddings(torch.from_numpy(ids)))


def _is_bidirectional(model: SplitModel, probe: Tensor) -> bool:
    """Tells whether the last word changes the first hidden state."""
    changed = probe.clone()
    changed[:, -1] *= -1
    return not torch.equal(model.run_body(changed)[:, 0], model.run_body(probe)[:, 0])


def _relative_error(layers: Layers, model: SplitModel, probe: Tensor) -> float:
    """Returns the largest difference from torch's hidden states, relative to the largest of those."""
    expected = model.run_body(probe).numpy()
    return float(abs(layers(probe.numpy()) - expected).max() / abs(expected).max())
