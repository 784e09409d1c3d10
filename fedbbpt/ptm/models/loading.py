"""Loads the backend of a model by its name. Together with `fedbbpt.whitebox`, only `ptm.models` imports torch."""

from pathlib import Path
from typing import Any

from fedbbpt.errors import InvalidInput
from fedbbpt.host.extras import needs_extra
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Precision, Runtime


def load(
    model: str,
    *,
    family: str = "",
    threads: int = 0,
    precision: Precision = Precision.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    device: str = "cpu",
    api_key: str = "",
) -> Backend[Any]:
    """Loads a model.

    Args:
        model: "fake"; "all-MiniLM-L6-v2" (the demo extra); a folder or a name on the Hugging Face hub; an ONNX file; or
            "openai:MODEL@http://HOST:PORT/v1" for a model of another server that speaks OpenAI's protocol.
        family: How to score with a checkpoint, one of `families.FAMILIES`; empty: as its architecture suggests.
        threads: Micro-batches that run in parallel; 0: as many as there are cores, or 8 requests to another server.
        precision: Precision of the model's layers. bfloat16 is two to three times as fast on machines that support it,
            but less accurate.
        runtime: What computes the layers of text encoders; other models run on torch.
        device: A device that torch knows, such as "cuda", for text models; other models run on the CPU.
        api_key: The key that is sent to another server.

    Raises:
        InvalidInput: There is no such model, it cannot be loaded, or it does not support the other arguments.
    """
    on_other_server = model.startswith("openai:")
    computes_itself = model == "fake" or model.endswith(".onnx") or on_other_server
    if computes_itself and precision is not Precision.FLOAT32:
        raise InvalidInput(f"this model does not support {precision}", where=model, fix="float32")
    if computes_itself and runtime is not Runtime.TORCH:
        raise InvalidInput(f"{runtime} computes text encoders only", where=model, fix="--engine torch")
    if computes_itself and device != "cpu":
        raise InvalidInput(f"device {device} is for text models that torch computes", where=model, fix="device cpu")
    if model == "fake":
        return Fake()
    if on_other_server:
        with needs_extra("openai", where="model"):  # the model's name is not repeated: its URL may contain a password
            from fedbbpt.ptm.models.openai.backend import connect
        return connect(model, api_key, threads=threads)
    if model.endswith(".onnx"):
        with needs_extra("onnx", where=model):
            from fedbbpt.ptm.models.image.onnx_classifier import OnnxClassifier
        return OnnxClassifier(Path(model), threads=threads)
    with needs_extra("ptm", where="model", alternative='the model "fake"'):
        from fedbbpt.ptm.models.families import load_backend
    return load_backend(model, family=family, threads=threads, precision=precision, runtime=runtime, device=device)
