"""Loads the backend of a model by its name. Together with `fedbbpt.whitebox`, only `ptm.models` imports torch."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from fedbbpt.errors import InvalidInput, InvalidPlugin, PluginMissing
from fedbbpt.host.extras import needs_extra
from fedbbpt.host.plugins import load_plugin
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.types import Precision, PrecisionChoice, Runtime

GROUP = "fedbbpt.backends"
"""The entry-point group of plug-in backends."""
BUILT_IN_PREFIXES = ("openai", "openai-chat")


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
    precision: Precision | PrecisionChoice = Precision.FLOAT32,
    runtime: Runtime = Runtime.TORCH,
    device: str = "cpu",
    max_length: int = 0,
    api_key: str = "",
) -> Backend[Any]:
    """Loads a model.

    Args:
        model: "fake"; "all-MiniLM-L6-v2" (the demo extra); "SmolLM2-135M-Instruct" (the smollm2 extra); a folder or a
            name on the Hugging Face hub; a GGUF or an ONNX file; "openai:MODEL@http://HOST:PORT/v1" for a model of
            another server that speaks OpenAI's protocol, or "openai-chat:..." for its chat completions. An installed
            plug-in loads "PREFIX:NAME" (`BackendFactory`).
        family: How to score with a checkpoint, one of `families.FAMILIES`; empty: as its architecture suggests.
        threads: Micro-batches that run in parallel; 0: as many as there are cores, or 8 requests to another server.
        precision: Precision of the model's layers. bfloat16 is two to three times as fast on machines that support it,
            but less accurate. "auto" takes it for text models on torch where a measurement says so
            (`precision.choice`), and float32 otherwise; the card says which.
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
    precision = PrecisionChoice(precision)
    if (misfit := find_misfit(model, family, device, precision, max_length)) is not None:
        raise InvalidInput(misfit.what, where=_public(model), fix=misfit.fix)
    prefix, colon, name = model.partition(":")
    if colon and (plugin := _plugin(prefix)) is not None:
        if runtime is not Runtime.TORCH:
            raise InvalidInput("a plug-in has no runtimes", where="model", fix="--engine torch")
        fixed = Precision.FLOAT32 if precision is PrecisionChoice.AUTO else Precision(precision)
        return plugin(name, threads=threads, precision=fixed, device=device)
    if colon and prefix not in BUILT_IN_PREFIXES and not Path(model).exists():
        what = f"no installed plug-in loads models that are called {prefix}:..."
        raise PluginMissing(what, where=model, fix=f"a package with {prefix!r} among its entry points fedbbpt.backends")
    if _kind(model) is _Kind.OTHER and runtime is not Runtime.TORCH:
        raise InvalidInput(f"{runtime} computes text encoders only", where=_public(model), fix="--engine torch")
    if model == "fake":
        return Fake()
    if model.startswith(_SERVERS):
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


_SERVERS = ("openai:", "openai-chat:")
"""Beginnings of the names of models behind another server."""


def is_elsewhere(model: str) -> bool:
    """Returns whether a model's name leads to another server, or to a plug-in, which may use any."""
    return model.startswith(_SERVERS) or _kind(model) is _Kind.PLUGIN


class _Kind(Enum):
    """What a model's name says about it, without looking for the model."""

    CHECKPOINT = "a checkpoint"
    PLUGIN = "a model of a plug-in"
    OTHER = "another model"


def _kind(model: str) -> _Kind:
    if model == "fake" or model.startswith(_SERVERS) or model.endswith(".onnx"):
        return _Kind.OTHER
    return _Kind.PLUGIN if ":" in model and not Path(model).exists() else _Kind.CHECKPOINT


@dataclass(frozen=True, slots=True)
class Misfit:
    """An option that a kind of model does not have."""

    key: str
    what: str
    fix: str


def find_misfit(model: str, family: str, device: str, precision: PrecisionChoice, max_length: int) -> Misfit | None:
    """Returns the first option that the model cannot have, judged by its name alone; None if there is none."""
    kind, name = _kind(model), _public(model)
    if kind is _Kind.OTHER and precision is PrecisionChoice.BFLOAT16:
        return Misfit("precision", f"the model {name} does not support {precision}", "auto or float32")
    if kind is _Kind.OTHER and device != "cpu":
        what = f"device {device} is for text models that torch computes, and not for {name}"
        return Misfit("device", what, "cpu")
    if kind is not _Kind.CHECKPOINT and family:
        return Misfit("family", f"family is for checkpoints of transformers, and not for {name}", "leave it out")
    if kind is not _Kind.CHECKPOINT and max_length:
        what = f"max_length is for checkpoints of transformers; {name} has its own longest input"
        return Misfit("max_length", what, "leave it out")
    return None


def _public(model: str) -> str:
    """Returns the name of a model without the address of its server, which may contain a password."""
    return f"{model.partition(':')[0]}:..." if model.startswith(_SERVERS) else model


def _plugin(prefix: str) -> BackendFactory | None:
    plugin: BackendFactory | None = load_plugin(GROUP, prefix, BUILT_IN_PREFIXES)
    if plugin is not None and not callable(plugin):
        what = f"entry point {prefix!r} is {plugin!r}"
        raise InvalidPlugin(what, where=GROUP, fix="a function that loads a model")
    return plugin
