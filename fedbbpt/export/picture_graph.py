"""A visual prompt as an ONNX graph that stands before an image model: from an image to the image with its picture."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fedbbpt.errors import UnsupportedPrompt
from fedbbpt.export.tuned import Tuned
from fedbbpt.prompts.visual import EPSILON, ImageSpace
from fedbbpt.types import Examples

NAME = "prompt.onnx"
IMAGE, PROMPTED = "image", "prompted"
TOLERANCE = 1e-4
"""Largest difference of a pixel from 0 to 1 between the graph and fedbbpt's own arithmetic."""
_OPSET, _IR_VERSION = 20, 9


def write_graph(tuned: Tuned, folder: Path) -> dict[str, Any]:
    """Writes the graph, and compares what ONNX Runtime makes of it with fedbbpt's own pictures.

    Its input `image` is uint8 `[N, C, H, W]`, its output `prompted` float32 `[N, C, H, W]` from 0 to 1.

    Raises:
        UnsupportedPrompt: The result has no visual prompt, reads scores without it as well, or computes other pictures.
    """
    space = tuned.space
    if not isinstance(space, ImageSpace) or not tuned.prompted:
        what = f"the result uses no visual prompt ({space.kind})"
        raise UnsupportedPrompt(what, where="--to onnx", fix="--to peft, vllm, hf or text")
    graph = _Graph(tuned.card.model_dump_json(), space, [each[0] for each in space.arrays(tuned.z[None])])
    onnx.save(graph.model(), folder / NAME)
    images = np.random.default_rng(0).integers(0, 256, (3, *space.image), np.uint8)
    images[0] = 0
    session = onnxruntime.InferenceSession(folder / NAME, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([PROMPTED], {IMAGE: images})
    gap = float(np.abs(theirs - prompted(tuned, images)).max())
    if not gap <= TOLERANCE:
        what = f"ONNX Runtime draws other pictures, by {gap:.2g}"
        raise UnsupportedPrompt(what, where="--to onnx", fix="`fedbbpt predict`")
    return {"inputs": [{"prompt": False}] * len(tuned.views) + [{"prompt": True}]}


def prompted(tuned: Tuned, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Returns images `[N, C, H, W]` with their pictures, from 0 to 1, as the PTM service computes them."""
    assert isinstance(tuned.space, ImageSpace)
    deltas = tuned.space.prompts(tuned.z[None], Examples(images=images)).deltas[0]
    clipped: npt.NDArray[np.float32] = np.clip(images.astype(np.float32) / np.float32(255) + deltas, 0, 1)
    return clipped


class _Graph:
    """The nodes of `prompts.visual`, one by one."""

    def __init__(self, card: str, space: ImageSpace, arrays: list[npt.NDArray[np.float32]]) -> None:
        self._card, self._space, self._arrays = card, space, arrays
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def model(self) -> Any:
        """Returns the graph as a model."""
        space, (trigger, *stages, last) = self._space, self._arrays
        channels, height, width = space.image
        pixels = self._add("Div", [self._add("Cast", [IMAGE], to=TensorProto.FLOAT), self._constant(np.float32(255))])
        pool = [height // space.pooled, width // space.pooled]
        features = self._add("Flatten", [self._add("AveragePool", [pixels], kernel_shape=pool, strides=pool)], axis=1)
        count = self._add("Shape", [IMAGE], start=0, end=1)
        repeats = self._add("Concat", [count, self._constant(np.array([len(trigger)], np.int64))], axis=0)
        triggers = self._add("Expand", [self._constant(trigger[None]), repeats])
        source = self._add("Concat", [features, triggers], axis=1)
        shape = np.array([-1, space.widths[0], space.grid, space.grid], np.int64)
        x = self._add("Reshape", [source, self._constant(shape)])
        for start in range(0, len(stages), 5):
            x = self._stage(x, *stages[start : start + 5])
        drawn = self._add("ConvTranspose", [x, self._constant(last)], strides=[2, 2], kernel_shape=[2, 2])
        scaled = self._add("Mul", [drawn, self._constant(np.float32(space.strength))])
        delta = self._clip(scaled, -1)
        self._nodes.append(helper.make_node("Identity", [self._clip(self._add("Add", [pixels, delta]), 0)], [PROMPTED]))
        shape_of_images: list[str | int | None] = ["N", channels, height, width]
        begin = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape_of_images)
        end = helper.make_tensor_value_info(PROMPTED, TensorProto.FLOAT, shape_of_images)
        graph = helper.make_graph(self._nodes, "visual prompt", [begin], [end], self._constants)
        opset = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=_IR_VERSION, producer_name="fedbbpt")
        helper.set_model_props(model, {"card": self._card})
        onnx.checker.check_model(model, full_check=True)
        return model

    def _stage(self, x: str, *arrays: npt.NDArray[np.float32]) -> str:
        each, bias, mixing, scale, shift = arrays
        inputs = [x, self._constant(each), self._constant(bias)]
        x = self._add("ConvTranspose", inputs, group=len(each), strides=[2, 2], kernel_shape=[2, 2])
        x = self._add("Conv", [x, self._constant(np.ascontiguousarray(mixing.T[:, :, None, None]))])
        x = self._add("InstanceNormalization", [x, self._constant(scale), self._constant(shift)], epsilon=EPSILON)
        return self._add("Gelu", [x])

    def _clip(self, x: str, least: float) -> str:
        return self._add("Clip", [x, self._constant(np.float32(least)), self._constant(np.float32(1))])

    def _add(self, kind: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def _constant(self, value: Any) -> str:
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
