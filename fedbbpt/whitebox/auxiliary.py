"""FedSP's auxiliary model (arXiv 2311.06805): a copy of the full model with fewer distinct layers.

A cell of consecutive layers is taken from the full model. With cross-layer parameter sharing ("share") the cell is
repeated through the full model's depth, which saves memory and bytes but not compute. With "drop" the other layers are
left out, which saves compute as well; the model's first layers may stand below the cell, because they make the states
that later layers expect. Embeddings, last norm and head are the full model's in either case.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from fedbbpt.errors import InvalidInput
from fedbbpt.types import Arrays
from fedbbpt.whitebox.stitch import add_stitch


@dataclass(frozen=True, slots=True)
class LayerRange:
    """The cell: the full model's decoder layers `[start, start + cell)`, shared through the depth or alone."""

    start: int
    cell: int
    mode: Literal["share", "drop"]
    bottom: int = 0
    """Number of the full model's first layers below the cell."""
    stitched: bool = False
    """Whether an affine map is in front of the cell."""

    @property
    def taken(self) -> tuple[int, ...]:
        """The full model's layers that are taken, from the lowest on."""
        return (*range(self.bottom), *range(self.start, self.start + self.cell))


def untrained_auxiliary(config: Any, layers: LayerRange) -> Any:
    """Returns the auxiliary model for a full model's configuration, with initial weights of the architecture.

    Under `torch.device("meta")` it has shapes but no weights.

    Raises:
        InvalidInput: The full model does not have these layers, or the bottom is not below the cell.
    """
    depth = config.num_hidden_layers
    if not 0 <= layers.start < layers.start + layers.cell <= depth:
        what = f"layers {layers.start} to {layers.start + layers.cell - 1} of {depth}"
        raise InvalidInput(what, where="method.start, method.cell", fix="layers that the model has")
    if not 0 <= layers.bottom <= layers.start or (layers.bottom and layers.mode == "share"):
        what, fix = f"{layers.bottom} layers below a cell that begins at {layers.start}", "0"
        if layers.mode == "drop":
            fix = f"0 to {layers.start}"
        raise InvalidInput(what, where="method.bottom", fix=f'{fix} with mode = "{layers.mode}"')
    if layers.stitched and layers.mode == "share":
        what = "a stitch below layers that are repeated to the full depth"
        raise InvalidInput(what, where="method.stitch", fix='false, or mode = "drop"')
    config = deepcopy(config)
    config.num_hidden_layers = len(layers.taken)
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]  # it has no types
    if layers.stitched:
        add_stitch(layer_list(model)[1][layers.bottom], config.hidden_size)
    if layers.mode == "share":
        _, decoder = layer_list(model)
        decoder.extend([_shared_copy(decoder[i % layers.cell], i) for i in range(layers.cell, depth)])
        model.config.num_hidden_layers = depth
    return model


def _shared_copy(layer: nn.Module, index: int) -> nn.Module:
    """Returns a layer with the same parameters at another index, under which it caches its own keys and values."""
    same: dict[int, Any] = {id(tensor): tensor for tensor in (*layer.parameters(), *layer.buffers())}
    same |= {id(module.config): module.config for module in layer.modules() if hasattr(module, "config")}
    copy = deepcopy(layer, same)
    for module in copy.modules():
        if hasattr(module, "layer_idx"):
            module.layer_idx = index  # type: ignore[assignment]  # torch types all attributes as tensors or modules
    return copy


def layer_list(model: Any) -> tuple[str, nn.ModuleList]:
    """Returns the decoder's list of layers, after its name within the model; knows Llama, GPT-2, OPT and others.

    Raises:
        InvalidInput: The model has no such list.
    """
    body = getattr(model.base_model, "decoder", model.base_model)
    found = next((each for each in (getattr(body, "layers", None), getattr(body, "h", None)) if each is not None), None)
    if not isinstance(found, nn.ModuleList):
        known = "a causal language model such as Llama, GPT-2 or OPT"
        raise InvalidInput(f"{type(model).__name__} has no list of layers", where="ptm.model", fix=known)
    return next(name for name, module in model.named_modules() if module is found), found


def extract_auxiliary(full: Any, layers: LayerRange) -> Any:
    """Returns the auxiliary model of a full model, with its weights, before any distillation."""
    model = untrained_auxiliary(full.config, layers)
    name, _ = layer_list(model)
    sources = {source: parameter.numpy(force=True) for source, parameter in full.named_parameters()}

    def source(parameter: str) -> str:
        if not parameter.startswith(f"{name}."):
            return parameter
        index, _, rest = parameter.removeprefix(f"{name}.").partition(".")
        return f"{name}.{layers.taken[int(index)]}.{rest}"

    own = weights(model)  # of which only a stitch is not the full model's
    load_weights(model, {parameter: sources.get(source(parameter), own[parameter]) for parameter in own})
    return model


def weights(model: nn.Module) -> Arrays:
    """Returns copies of all parameters by name; a shared parameter occurs once, under its first name."""
    return {name: parameter.numpy(force=True).copy() for name, parameter in model.named_parameters()}


def load_weights(model: nn.Module, arrays: Arrays) -> None:
    """Copies weights into a model. Raises InvalidInput if names or shapes are not the model's."""
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise InvalidInput(
            "these are the weights of another model",
            where="auxiliary model",
            fix="the file that the model's owner made",
        )
    with torch.no_grad():
        for name, array in arrays.items():
            parameters[name].copy_(torch.from_numpy(array))
