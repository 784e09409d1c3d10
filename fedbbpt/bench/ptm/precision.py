"""What other precisions and other engines gain over torch in float32, and how far their scores are from its."""

from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.service import Service, service
from fedbbpt.bench.ptm.turns import Note, take_turns
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
    base: Service, model: str, folder: Path, threads: int, task: TaskSpec, workload: Workload, repeats: int, note: Note
) -> tuple[Figure, ...]:
    """`base` computes in float32 with torch."""
    figures: list[Figure] = []
    for runtime, precision in OTHERS:
        name, turns = f"{runtime} {precision}", None
        if runtime is Runtime.TORCH or find_spec(runtime.value) is not None:
            note(name)
            try:
                with service(folder / name, model, threads, precision, runtime) as other:
                    ways = {BASE: base.way(task, workload), name: other.way(task, workload)}
                    turns = take_turns(ways, workload, repeats, note)
            except ChildFailed:  # this machine has no such precision, or the engine cannot compute the model
                pass
        figures += [
            Figure(PART, f"{name} / {BASE}", turns.ratios(name, BASE) if turns else (), "x"),
            Figure(PART, f"{name}: scores apart, at most", (turns.apart(name, BASE),) if turns else ()),
        ]
    return tuple(figures)
