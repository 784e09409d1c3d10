"""How a model's layers are computed: their precision, and their runtime."""

from enum import StrEnum


class Precision(StrEnum):
    """The precision of a model's layers."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class PrecisionChoice(StrEnum):
    """The precision that a user asks for. `AUTO` leaves the choice to a measurement, so no loaded model has it."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Runtime(StrEnum):
    """The runtime that computes an encoder's layers. Embeddings and heads always run in torch."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
