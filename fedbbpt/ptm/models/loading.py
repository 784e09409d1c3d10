"""The models behind the wall. Beside `fedbbpt.whitebox`, torch is imported here and nowhere else."""

from pathlib import Path
from typing import Any

from fedbbpt.errors import InvalidInput
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
    """The backend of a model: "fake", "all-MiniLM-L6-v2" (the demo extra), a folder, a name on the hub, an ONNX file,
    or behind a server of OpenAI's protocol "openai:MODEL@http://HOST:PORT/v1", to which `api_key` is sent.

    `family` says how to ask it (`families.FAMILIES`); empty reads that from the checkpoint's architecture. `threads` 0
    takes all cores, or of a server 8 requests at a time. bfloat16 is two to three times as fast where the machine has
    it, and less exact. `runtime` is for encoders of texts, a `device` that torch knows ("cuda") for all models of
    texts. Raises InvalidInput where the model cannot be had.
    """
    behind_server = model.startswith("openai:")
    computes_itself = model == "fake" or model.endswith(".onnx") or behind_server
    if computes_itself and precision is not Precision.FLOAT32:
        raise InvalidInput(f"{precision} is not to be had", where=model, fix="float32")
    if computes_itself and runtime is not Runtime.TORCH:
        raise InvalidInput(f"{runtime} computes encoders of texts only", where=model, fix="--engine torch")
    if computes_itself and device != "cpu":
        raise InvalidInput(f"{device} computes models of texts, by torch", where=model, fix="device cpu")
    if model == "fake":
        return Fake()
    if behind_server:
        try:
            from fedbbpt.ptm.models.openai.backend import connect
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{error.name} is not installed", where="model", fix="pip install 'fedbbpt[openai]'"
            ) from None
        return connect(model, api_key, threads=threads)
    if model.endswith(".onnx"):
        try:
            from fedbbpt.ptm.models.image.onnx_classifier import OnnxClassifier
        except ModuleNotFoundError as error:
            raise InvalidInput(
                f"{error.name} is not installed", where=model, fix="pip install 'fedbbpt[onnx]'"
            ) from None
        return OnnxClassifier(Path(model), threads=threads)
    try:
        from fedbbpt.ptm.models.families import load_backend
    except ModuleNotFoundError as error:
        raise InvalidInput(
            f"{error.name} is not installed", where="model", fix="pip install 'fedbbpt[ptm]', or the model \"fake\""
        ) from None
    return load_backend(model, family=family, threads=threads, precision=precision, runtime=runtime, device=device)
