"""What other precisions and other engines gain over the service's own, and how far their scores are from its."""

from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fedbbpt.bench.ptm.figures import Figure
from fedbbpt.bench.ptm.service import Service, service
from fedbbpt.bench.ptm.turns import Note, Turns, take_turns
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.errors import ChildFailed
from fedbbpt.types import Precision, Runtime, TaskSpec

PART = "precision"
ALL = (
    (Runtime.TORCH, Precision.FLOAT32),
    (Runtime.TORCH, Precision.BFLOAT16),
    (Runtime.ONNXRUNTIME, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.FLOAT32),
    (Runtime.OPENVINO, Precision.BFLOAT16),
)


def measure(
    own: Service, model: str, folder: Path, threads: int, task: TaskSpec, workload: Workload, repeats: int, note: Note
) -> tuple[Figure, ...]:
    """A service of each other kind beside `own`, one after the other."""
    figures: list[Figure] = []
    base = f"{own.runtime} {own.precision}"
    for runtime, precision in ALL:
        name = f"{runtime} {precision}"
        if name == base:
            continue
        asked = replace(workload, series=name)
        turns: Turns | None = None
        if runtime is Runtime.TORCH or find_spec(runtime.value) is not None:
            note(f"starting a service with {name}")
            # The machine may lack the precision, and the engine may be unable to compute the model.
            with suppress(ChildFailed), service(folder / name, model, threads, precision, runtime) as other:
                turns = take_turns({base: own.way(task, asked), name: other.way(task, asked)}, asked, repeats, note)
        figures += [
            Figure(PART, f"{name} / {base}", turns.ratios(name, base) if turns else (), "x"),
            Figure(PART, f"{name}: scores apart", (turns.apart(name, base),) if turns else ()),
        ]
    return tuple(figures)
