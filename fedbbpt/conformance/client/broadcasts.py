"""Makes the tasks of a run: what a coordinator might broadcast in a round, from draws that are the same every time."""

from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.client import draws
from fedbbpt.conformance.client.cases import Round
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import tensor_pb2

SEEDS = 0x9E3779B97F4A7C15
"""Round r has the seed (r + 1) x SEEDS modulo 2^64: many of them need all 64 bits."""
DEADLINE_SECONDS = 300
_CODES = {"<f4": tensor_pb2.D_TYPE_FLOAT32, "<f8": tensor_pb2.D_TYPE_FLOAT64, "<i4": tensor_pb2.D_TYPE_INT32}


def seed(round: int) -> int:
    """Returns the seed of a round."""
    return (round + 1) * SEEDS % 2**64


def _spread(round: int, name: str, shape: tuple[int, ...], low: float, high: float) -> npt.NDArray[np.float32]:
    count = int(np.prod(shape))
    drawn = np.array(draws.uniforms(draws.derive(round, "conformance", name), count)).reshape(shape)
    return (low + (high - low) * drawn).astype(np.float32)


def length(run: pb.JoinResponse) -> int:
    """Returns n, the length of z."""
    task = run.task
    deep = task.deep
    layers = deep.layers - deep.first_layer
    columns = len(task.classes) + len(task.columns)
    width = (len(task.views) + (task.WhichOneof("prompt") != "none")) * columns
    readout = len(task.classes) * (width + 1) if task.views else 0
    return (
        readout
        + {
            "latent": task.latent.dim,
            "text": task.text.dim,
            "deep": layers * 2 * deep.heads * deep.tokens * deep.width,
            "none": 0,
        }[task.WhichOneof("prompt") or "none"]
    )


def arrays(run: pb.JoinResponse, round: int, asked: Round) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays of a round of the run's method."""
    n = length(run)
    mean = _spread(round, "mean", (n,), -1, 1)
    if run.method.WhichOneof("method") == "fed_cma":
        settings = run.method.fed_cma
        if settings.candidates_sent:
            return {"mean": mean, "candidates": _spread(round, "candidates", (settings.population, n), -2, 2)}
        if settings.expansion_sent:
            center = _spread(round, "center", (n,), -1, 1)
            return {"mean": mean, "center": center, "scale": _spread(round, "scale", (1,), 0.25, 1)}
        return {"mean": mean, "scale": _spread(round, "scale", (n,), 0.25, 1)}
    if run.method.WhichOneof("method") == "fed_bpt":
        limit = {"limit": np.array([2.0], np.float32)} if asked.limit else {}
        return {"mean": mean, "sigma": _spread(round, "sigma", (1,), 0.25, 1), **limit}
    if run.method.WhichOneof("method") == "fed_bbpt":
        bbpt = run.method.fed_bbpt
        size = bbpt.hidden * (bbpt.code + 1) + n * (bbpt.hidden + 1)
        theta = {"theta": _spread(round, "theta", (size,), -1, 1)}
        return theta | ({"round": np.array([round], np.int32)} if bbpt.scalars_sent else {})
    if run.method.WhichOneof("method") == "fed_readout":
        task = run.task
        views = len(task.views) + asked.prompted
        shape = (asked.readouts, len(task.classes), views * (len(task.classes) + len(task.columns)) + 1)
        whole = {"whole": np.ones(1, np.float32)} if asked.whole else {}
        if task.latent.dim and not asked.prompted:
            # A readout that does not use the prompt: the last V columns of D are zero.
            readout = mean[task.latent.dim :].reshape(shape[1], -1)
            readout[:, shape[2] - 1 : -1] = 0
        return {"readouts": _spread(round, "readouts", shape, -0.5, 0.5).astype(np.float64), "mean": mean, **whole}
    raise NotImplementedError(run.method.WhichOneof("method"))


def task(run: pb.JoinResponse, client_id: str, round: int, asked: Round) -> tuple[pb.TaskHeader, bytes, dict[str, Any]]:
    """Returns a task's header, the bytes of its arrays if they travel in chunks, and the arrays."""
    phase = pb.PHASE_UPDATE if asked.phase == "update" else pb.PHASE_EVALUATE
    found = arrays(run, round, asked)
    if asked.finalists:
        found["finalists"] = _spread(round, "finalists", (asked.finalists, length(run)), -1, 1)
    header = pb.TaskHeader(seed=seed(round))
    header.id.CopyFrom(pb.TaskId(run_id=run.run_id, round=round, client_id=client_id, phase=phase))
    header.deadline.FromSeconds(DEADLINE_SECONDS)
    data = b"".join(array.tobytes() for array in found.values())
    for name, array in found.items():
        header.arrays.tensors.add(name=name, dtype=_CODES[array.dtype.str], shape=array.shape)
    header.arrays.total_bytes, header.arrays.crc32c = len(data), google_crc32c.value(data)
    if not asked.chunk_bytes:
        header.arrays.data, data = data, b""
    return header, data, found
