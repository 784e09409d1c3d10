"""What other precisions and other engines gain over torch in float32, and how far their scores are from its."""

from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.service import service
from fedbbpt.bench.ptm.turns import Note, Turns, take_turns
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.errors import ChildFailed
from fedbbpt.types import Precision, Runtime, TaskSpec

PART = "precision"
BASE = "torch float32"
OTHERS = (
    (Runtime.TORCH, Precision.BFLOAT16),
    (Runtime.ONNXRUNTIME, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.BFLOAT16),
)


def measure(
    model: str, folder: Path, threads: int, task: TaskSpec, workload: Workload, repeats: int, note: Note
) -> tuple[Figure, ...]:
    figures: list[Figure] = []
    with service(folder / BASE, model, threads) as base:
        for runtime, precision in OTHERS:
            name = f"{runtime} {precision}"
            own = replace(workload, series=name)
            turns: Turns | None = None
            if runtime is Runtime.TORCH or find_spec(runtime.value) is not None:
                # The machine may lack the precision, and the engine may be unable to compute the model.
                with suppress(ChildFailed), service(folder / name, model, threads, precision, runtime) as other:
                    turns = take_turns({BASE: base.way(task, own), name: other.way(task, own)}, own, repeats, note)
            figures += [
                Figure(PART, f"{name} / {BASE}", turns.ratios(name, BASE) if turns else (), "x"),
                Figure(PART, f"{name}: scores apart, at most", (turns.apart(name, BASE),) if turns else ()),
            ]
    return tuple(figures)
