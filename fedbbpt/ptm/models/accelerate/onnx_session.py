"""Opens ONNX models in ONNX Runtime."""

from pathlib import Path
from typing import Any

import onnxruntime


def open_session(path: Path) -> Any:
    """Returns a session for all threads: each call is computed by the thread that makes it, on a CPU.

    Raises:
        Exception: The file is not a model that ONNX Runtime can compute. Its errors have no base class of their own.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # only errors, which are also raised
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
