"""Measures pairs per second through gRPC, in the ideal loop, and in the padded loop."""

from fedbbpt.bench.ptm.comparison import Progress, compare
from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.reference_loops import ReferenceLoops
from fedbbpt.bench.ptm.running_service import RunningService
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec

PART = "throughput"
GRPC, IDEAL, PADDED, PLAIN = "through gRPC", "ideal loop", "padded", "padded, torch's own layers"


def measure(
    service: RunningService,
    model: str,
    threads: int,
    task: TaskSpec,
    workload: Workload,
    repeats: int,
    progress: Progress,
) -> tuple[Figure, ...]:
    """Compares the service with the ideal loop, and with the padded loop with packed and with plain linear layers."""
    family = service.ptm.describe().family
    packed = ReferenceLoops(model, family, task, workload, threads, service.precision)
    plain = ReferenceLoops(model, family, task, workload, threads, service.precision, packed=False)
    scorers = {
        GRPC: service.scorer(task, workload),
        IDEAL: packed.ideal,
        PADDED: packed.padded,
        PLAIN: plain.padded,
    }
    found = compare(scorers, workload, repeats, progress)
    return (
        *(Figure(PART, name, rates, "pairs/s") for name, rates in found.rates.items()),
        Figure(PART, f"{GRPC} / {IDEAL}", found.ratios(GRPC, IDEAL), "x", Bar(0.95)),
        Figure(PART, f"{GRPC} / {PADDED}", found.ratios(GRPC, PADDED), "x", Bar(1.35)),
        Figure(PART, f"{GRPC} / {PLAIN}", found.ratios(GRPC, PLAIN), "x"),
        Figure(PART, "scores: apart from the ideal loop's", (found.largest_difference(GRPC, IDEAL),)),
        Figure(PART, "scores: apart from those padded", (found.largest_difference(GRPC, PADDED),)),
    )
