"""Loads the backend of a model by its name. Together with `fedbbpt.whitebox`, only `ptm.models` imports torch."""

from pathlib import Path
from typing import Any, Protocol

from fedbbpt.errors import InvalidInput, InvalidPlugin, PluginMissing
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.plugins import load_plugin
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Precision, Runtime

GROUP = "fedbbpt.backends"
"""The entry-point group of plug-in backends."""
BUILT_IN_PREFIXES = ("openai",)


class BackendFactory(Protocol):
    """Loads the models of a plug-in: for the model "PREFIX:NAME", the entry point PREFIX receives NAME."""

    def __call__(self, name: str, *, threads: int, precision: Precision, device: str) -> Backend[Any]:
        """Returns the backend of a model.

        Args:
            name: The model's name after the prefix and its colon.
            threads: Micro-batches that run in parallel; 0: as many as there are cores.
            precision: Precision of the model's layers.
            device: The device to compute on, such as "cpu" or "cuda".

        Raises:
            InvalidInput: The model cannot be loaded, or not with this precision or on this device.
        """
        ...


def load(
    model: str,
    *,
    family: str = "",
    threads: int = 0,
    precision: Precision = Precision.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    device: str = "cpu",
    max_length: int = 0,
    api_key: str = "",
) -> Backend[Any]:
    """Loads a model.

    Args:
        model: "fake"; "all-MiniLM-L6-v2" (the demo extra); a folder or a name on the Hugging Face hub; an ONNX file; or
            "openai:MODEL@http://HOST:PORT/v1" for a model of another server that speaks OpenAI's protocol. An installed
            plug-in loads "PREFIX:NAME" (`BackendFactory`).
        family: How to score with a checkpoint, one of `families.FAMILIES`; empty: as its architecture suggests.
        threads: Micro-batches that run in parallel; 0: as many as there are cores, or 8 requests to another server.
        precision: Precision of the model's layers. bfloat16 is two to three times as fast on machines that support it,
            but less accurate.
        runtime: What computes the layers of text encoders; other models run on torch.
        device: A device that torch knows, such as "cuda", for text models; other models run on the CPU.
        max_length: The most tokens of an input, prompt included, for checkpoints of text models; 0: as many as the
            model takes.
        api_key: The key that is sent to another server.

    Raises:
        InvalidInput: There is no such model, it cannot be loaded, or it does not support the other arguments.
        InvalidPlugin: The plug-in does not load, or its prefix is taken.
        PluginMissing: No installed package offers the prefix.
    """
    prefix, colon, name = model.partition(":")
    if colon and (plugin := _plugin(prefix)) is not None:
        if family or runtime is not Runtime.TORCH or max_length:
            what = "a plug-in has neither families nor runtimes, and states its own longest input"
            raise InvalidInput(what, where="model", fix="leave out family, engine and max_length")
        return plugin(name, threads=threads, precision=precision, device=device)
    if colon and prefix != "openai" and not Path(model).exists():
        what = f"no installed plug-in loads models that are called {prefix}:..."
        raise PluginMissing(what, where=model, fix=f"a package with {prefix!r} among its entry points fedbbpt.backends")
    on_other_server = model.startswith("openai:")
    without_torch = model == "fake" or model.endswith(".onnx") or on_other_server
    if without_torch and precision is not Precision.FLOAT32:
        raise InvalidInput(f"this model does not support {precision}", where=_public(model), fix="float32")
    if without_torch and runtime is not Runtime.TORCH:
        raise InvalidInput(f"{runtime} computes text encoders only", where=_public(model), fix="--engine torch")
    if without_torch and device != "cpu":
        raise InvalidInput(
            f"device {device} is for text models that torch computes", where=_public(model), fix="device cpu"
        )
    if without_torch and (family or max_length):
        name = "family" if family else "max_length"
        raise InvalidInput(f"{name} is for checkpoints of transformers", where=_public(model), fix=f"no {name}")
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
    return load_backend(
        model,
        family=family,
        threads=threads,
        precision=precision,
        runtime=runtime,
        device=device,
        max_length=max_length,
    )


def _public(model: str) -> str:
    """Returns the name of a model without the address of its server, which may contain a password."""
    return "openai:..." if model.startswith("openai:") else model


def _plugin(prefix: str) -> BackendFactory | None:
    plugin: BackendFactory | None = load_plugin(GROUP, prefix, BUILT_IN_PREFIXES)
    if plugin is not None and not callable(plugin):
        what = f"entry point {prefix!r} is {plugin!r}"
        raise InvalidPlugin(what, where=GROUP, fix="a function that loads a model")
    return plugin
