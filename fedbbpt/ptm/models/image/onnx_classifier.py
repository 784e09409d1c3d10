"""Image classifiers in an ONNX file, computed by ONNX Runtime: a class scores by the logit of a label of the model."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.errors import InvalidInput, first_line
from fedbbpt.ptm.models.accelerate.onnx_session import open_session
from fedbbpt.ptm.models.image.image_model import Pixels
from fedbbpt.ptm.models.image.labelled_image_model import LabelledImageModel
from fedbbpt.types import Scores

LABELS = ".labels.json"
"""Ending of the file with the names of the classes, a JSON list: MODEL.labels.json beside MODEL.onnx."""


class OnnxClassifier(LabelledImageModel):
    """A model with one input, float32 `[batch, C, H, W]` from 0 to 1 with C, H and W fixed.

    Its first output is logits `[batch, classes]`, and its weights are inside the file. Without a file of labels, its
    classes are called "0", "1" and so on.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        self._session = _open(path)
        self._input, shape = _input(self._session, path)
        self._output = self._session.get_outputs()[0].name
        names = _labels(path, len(self._first(np.zeros(shape, np.float32), path)))
        digest = hashlib.sha256(path.read_bytes() + json.dumps(names).encode()).hexdigest()
        super().__init__(str(path), digest[:32], shape, names, threads=threads)

    def _logits(self, image: Pixels) -> Scores:
        logits: Scores = self._session.run([self._output], {self._input: image[None]})[0][0]
        return logits

    def _first(self, image: Pixels, path: Path) -> Scores:
        """Returns the logits of a first image, or raises InvalidInput if the model does not compute logits."""
        try:
            logits = self._logits(image)
        except Exception as error:  # ONNX Runtime's errors have no base class of their own
            raise InvalidInput(
                f"the model cannot be run: {first_line(error)}", where=str(path), fix="another model"
            ) from None
        if not isinstance(logits, np.ndarray) or logits.ndim != 1 or len(logits) < 2 or logits.dtype != np.float32:
            raise InvalidInput(
                f"the first output {self._output!r} is not a row of logits",
                where=str(path),
                fix="float32 [batch, classes]",
            )
        return logits


def _open(path: Path) -> Any:
    try:
        return open_session(path)
    except Exception as error:  # as above
        raise InvalidInput(first_line(error), where=str(path), fix="a model in ONNX") from None


def _input(session: Any, path: Path) -> tuple[str, tuple[int, int, int]]:
    """Returns the name and the shape (C, H, W) of the model's input."""
    inputs = session.get_inputs()
    batch, *sides = inputs[0].shape if len(inputs) == 1 and len(inputs[0].shape) == 4 else (0,)
    fixed = [side for side in sides if isinstance(side, int) and side > 0]
    if inputs[0].type != "tensor(float)" or len(fixed) != 3 or (isinstance(batch, int) and batch != 1):
        found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
        fix = "one input, float32 [batch, C, H, W] with fixed C, H and W"
        raise InvalidInput(f"the model's inputs are {found}", where=str(path), fix=fix)
    return inputs[0].name, (fixed[0], fixed[1], fixed[2])


def _labels(path: Path, count: int) -> tuple[str, ...]:
    """Returns the names of the classes from the file beside the model, or else their numbers."""
    file = path.with_suffix(LABELS)
    if not file.exists():
        return tuple(map(str, range(count)))
    try:
        names = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidInput(first_line(error), where=str(file), fix="a JSON list of names") from None
    texts = isinstance(names, list) and all(isinstance(name, str) and name.strip() for name in names)
    if not texts or len(set(names)) != len(names) or len(names) != count:
        raise InvalidInput(
            "these are not the model's labels", where=str(file), fix=f"a JSON list of {count} different names"
        )
    return tuple(names)
