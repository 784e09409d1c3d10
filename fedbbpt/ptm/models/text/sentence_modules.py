"""Reads the modules that follow a sentence encoder's transformer, each from a folder of its own.

A setting that is unknown or unsupported is refused: it may change the embedding.
"""

from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.models.checkpoint_files import WEIGHTS, read_json
from fedbbpt.ptm.models.text.pooling import POOLING_MODES, Dense, LayerNorm, Normalize, Pooling

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""Flags of files that were saved before sentence-transformers 6, in the order in which their modes are joined."""
_EMBEDDING = "sentence_embedding"
_NAMES = {"module_input_name", "module_output_name"}
_ACTIVATIONS = ("torch.nn.modules.activation", "torch.nn.modules.linear", "torch.nn")


def read_settings(path: Path, known: Set[str]) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        InvalidInput: The file cannot be read, or has a name that is not `known`.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InvalidInput("not a JSON object", where=str(path), fix="the file as it was published")
    for name, value in content.items():
        if name not in known:
            refuse_setting(path, name, value, "an encoder without this setting")
    return content


def refuse_setting(path: Path, name: str, value: object, fix: str) -> NoReturn:
    """Raises InvalidInput for a setting that is not supported."""
    raise InvalidInput(f"{name} = {value!r} is not supported", where=str(path), fix=fix)


def read_pooling(folder: Path) -> tuple[Pooling, bool]:
    """Returns the pooling, and whether it includes the tokens of a prompt that the encoder has itself.

    Raises:
        InvalidInput: The file is broken or asks for what is not supported.
    """
    path = folder / "config.json"
    sizes = {"embedding_dimension", "word_embedding_dimension"}
    settings = read_settings(path, {*sizes, *_FLAGS, "pooling_mode", "include_prompt"})
    modes = settings.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _FLAGS.items() if settings.get(flag)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else modes
    if not isinstance(modes, list) or not modes or not all(mode in POOLING_MODES for mode in modes):
        refuse_setting(path, "pooling_mode", modes, f"one or several of {', '.join(POOLING_MODES)}")
    return Pooling(tuple(modes)), bool(settings.get("include_prompt", True))


def _read_dense(folder: Path) -> nn.Module:
    path = folder / "config.json"
    known = {*_NAMES, "in_features", "out_features", "bias", "activation_function", "use_residual"}
    settings = read_settings(path, known)
    _check_names(path, settings)
    name = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    package, _, function = str(name).rpartition(".")
    activation: Any = getattr(nn, function, None) if package in _ACTIVATIONS else None
    if not (isinstance(activation, type) and issubclass(activation, nn.Module)):
        refuse_setting(path, "activation_function", name, "a module of torch.nn, such as torch.nn.Tanh")
    try:
        dense = Dense(
            settings["in_features"],
            settings["out_features"],
            bias=settings.get("bias", True),
            activation=activation(),
            residual=settings.get("use_residual", False),
        )
    except (KeyError, TypeError) as error:
        raise InvalidInput(f"not a dense layer: {error}", where=str(path), fix="the file as it was published") from None
    return _with_weights(dense, folder)


def _read_layer_norm(folder: Path) -> nn.Module:
    path = folder / "config.json"
    width = read_settings(path, {"dimension"}).get("dimension")
    if not isinstance(width, int):
        refuse_setting(path, "dimension", width, "the width of the embedding")
    return _with_weights(LayerNorm(width), folder)


def _read_normalize(folder: Path) -> nn.Module:
    path = folder / "config.json"
    if path.is_file():  # older versions saved none
        _check_names(path, read_settings(path, _NAMES))
    return Normalize()


MODULES_AFTER_POOLING: Mapping[str, Callable[[Path], nn.Module | None]] = {
    "Dense": _read_dense,
    "LayerNorm": _read_layer_norm,
    "Normalize": _read_normalize,
    "Dropout": lambda _: None,
}
"""Reads a module from its folder; None if it does nothing outside training."""


def _check_names(path: Path, settings: Mapping[str, Any]) -> None:
    """Raises InvalidInput if a module reads or writes anything except the embedding."""
    for name in sorted(_NAMES):
        if settings.get(name) not in (None, _EMBEDDING):
            refuse_setting(path, name, settings[name], f'"{_EMBEDDING}"')


def _with_weights(module: nn.Module, folder: Path) -> nn.Module:
    path = folder / WEIGHTS
    if not path.is_file():
        raise InvalidInput(f"no {WEIGHTS}", where=str(folder), fix="a module saved as safetensors")
    try:
        module.load_state_dict(load_file(path))
    except (OSError, SafetensorError, RuntimeError) as error:
        what = f"the weights do not fit config.json: {' '.join(str(error).split())}"
        raise InvalidInput(what, where=str(path), fix="the files as they were published") from None
    return module.requires_grad_(False)
