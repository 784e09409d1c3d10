"""An encoder's layers computed by another runtime than torch: ONNX Runtime or OpenVINO, on the CPU.

They are exported to ONNX once, at the start, from what enters the first layer to the last hidden states, for any number
and length of inputs. That they give what torch gives is measured, not believed.
"""

import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from fedbbpt import seeds
from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.checkpoint import Checkpoint
from fedbbpt.ptm.models.text.split_model import SplitModel
from fedbbpt.types import Array, Precision, Runtime

ENCODERS = frozenset({"dual-encoder", "masked-lm", "sequence-classifier"})
TOLERANCE = {Precision.FLOAT32: 1e-4, Precision.BFLOAT16: 0.1}
"""How far hidden states may lie from torch's, as a share of the largest of those."""
MAX_PROBE_TOKENS = 1024
"""Tokens; what is longer is not compared, since it takes too long."""

Layers: TypeAlias = Callable[[Array], Array]
"""From what enters the first layer to the last hidden states, both float32 `[N, T, D]`, in any thread."""

_OPSET = 17  # the first that has LayerNormalization
_INPUT, _OUTPUT = "inputs", "hidden"
_FIX = "--engine torch"


def check_runtime(runtime: Runtime, precision: Precision, family: str, model: str) -> None:
    """Raises InvalidInput where the runtime is not installed, or has no such families or precision."""
    if runtime is Runtime.TORCH:
        return
    if family not in ENCODERS:  # a causal language model goes on from the keys and values of what it has read
        raise InvalidInput(f"{runtime} computes encoders of texts, and this is a {family}", where=model, fix=_FIX)
    for package in (runtime.value, "onnx"):  # torch's exporter needs the latter
        if find_spec(package) is None:
            fix = f"pip install 'fedbbpt[{runtime}]', or {_FIX}"
            raise InvalidInput(f"{package} is not installed", where=f"--engine {runtime}", fix=fix)
    if precision is Precision.BFLOAT16 and not _has_bfloat16(runtime):
        raise InvalidInput(f"{runtime} has no {precision} on this machine", where=model, fix=f"float32, or {_FIX}")


def export_body(model: SplitModel, checkpoint: Checkpoint, threads: int) -> SplitModel:
    """The parts with a body that `checkpoint.runtime` computes, in so many calls side by side, each on one thread.

    Raises InvalidInput where it cannot, or gives something else than torch.
    """
    name, runtime, precision = checkpoint.name, checkpoint.runtime, checkpoint.precision
    longest = min(checkpoint.max_tokens, MAX_PROBE_TOKENS)
    try:
        with torch.inference_mode(), TemporaryDirectory() as folder:
            probes = [_probe(model, *shape) for shape in ((16, 1), (3, 7), (2, longest // 2), (1, longest))]
            if not _is_bidirectional(model, probes[-1]):
                raise InvalidInput(f"{runtime} computes encoders, and this reads forwards", where=name, fix=_FIX)
            path = Path(folder, "layers.onnx")
            _export(model.body, probes[1], path)
            layers = _onnxruntime(path) if runtime is Runtime.ONNXRUNTIME else _openvino(path, precision, threads)
            apart = np.max([_relative_error(layers, model, probe) for probe in probes])
    except InvalidInput:
        raise
    except Exception as error:  # exporters, runtimes and the models' own code raise whatever they like
        what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InvalidInput(f"{runtime} cannot compute it: {what}", where=name, fix=_FIX) from None
    if not apart <= TOLERANCE[precision]:  # nor where it is not a number
        what = f"{runtime} gives other hidden states than torch, by {apart:.1g} of the largest"
        raise InvalidInput(what, where=name, fix=_FIX)
    return model.with_body(_ExportedBody(layers))


@dataclass(frozen=True, slots=True)
class _ExportedBody:
    """Is asked as torch's body is."""

    layers: Layers

    def __call__(self, *, inputs_embeds: Tensor) -> BaseModelOutput:
        return BaseModelOutput(torch.from_numpy(self.layers(inputs_embeds.contiguous().numpy())))


def _onnxruntime(path: Path) -> Layers:
    """One session for all threads; each call is computed in the thread that makes it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors, which are raised as well
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def layers(inputs: Array) -> Array:
        hidden: Array = session.run([_OUTPUT], {_INPUT: inputs})[0]
        return hidden

    return layers


def _openvino(path: Path, precision: Precision, threads: int) -> Layers:
    """Computed in threads of its own, one a stream."""
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BFLOAT16 else "f32",
        "NUM_STREAMS": threads,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,  # or services on one machine would all take the same cores
        # Its fused attention, once it has met an input of one token first, is wrong for all others; and no faster.
        "SNIPPETS_MODE": "DISABLE",
        "CPU_RUNTIME_CACHE_CAPACITY": 64,  # of 5000 kernels by shape: memory grew for as long as shapes were new
    }
    requests = _Requests(_import_openvino().Core().compile_model(str(path), "CPU", settings))

    def layers(inputs: Array) -> Array:
        hidden: Array = requests.own.infer([inputs], share_inputs=True)[0]
        return hidden

    return layers


class _Requests(threading.local):
    """Each thread has its own, made when it first asks: one that runs can be asked nothing else."""

    def __init__(self, compiled: Any) -> None:
        self.own = compiled.create_infer_request()


def _import_openvino() -> Any:
    """Keeps the package from telling its makers that it was imported, which is what `openvino_telemetry` is for."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: it cannot be imported
    import openvino

    return openvino


def _has_bfloat16(runtime: Runtime) -> bool:
    if runtime is not Runtime.OPENVINO:
        return False
    return "BF16" in _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _export(body: Any, probe: Tensor, path: Path) -> None:
    names = {0: "count", 1: "tokens"}
    with warnings.catch_warnings():
        # The exporter that needs no further package is the older one. What tracing loses, the comparison finds.
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
    """The exporter takes modules from tensors to tensors."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.body(inputs_embeds=inputs).last_hidden_state
        return hidden


def _probe(model: SplitModel, count: int, tokens: int) -> Tensor:
    """What any words are where they enter the first layer, `[count, tokens, D]`."""
    ids = seeds.rng(0, "runtime", count, tokens).integers(0, model.word_embeddings.num_embeddings, (count, tokens))
    return model.apply_embedding_block(model.word_embeddings(torch.from_numpy(ids)))


def _is_bidirectional(model: SplitModel, probe: Tensor) -> bool:
    """Whether the first hidden state knows the last word."""
    changed = probe.clone()
    changed[:, -1] *= -1
    return not torch.equal(model.run_body(changed)[:, 0], model.run_body(probe)[:, 0])


def _relative_error(layers: Layers, model: SplitModel, probe: Tensor) -> float:
    """The largest difference, as a share of torch's largest number."""
    theirs = model.run_body(probe).numpy()
    return float(abs(layers(probe.numpy()) - theirs).max() / abs(theirs).max())
