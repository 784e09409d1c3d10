"""Pairs per second through gRPC, in the ideal loop, and in the usual one."""

from fedbbpt.bench.ptm.figures import Bar, Figure
from fedbbpt.bench.ptm.loops.by_hand import ByHand
from fedbbpt.bench.ptm.service import Service
from fedbbpt.bench.ptm.turns import Note, take_turns
from fedbbpt.bench.ptm.workload import Workload
from fedbbpt.types import TaskSpec

PART = "throughput"
GRPC, IDEAL, PADDED, PLAIN = "through gRPC", "ideal loop", "padded", "padded, torch's own layers"


def measure(
    service: Service, model: str, threads: int, task: TaskSpec, workload: Workload, repeats: int, note: Note
) -> tuple[Figure, ...]:
    family = service.ptm.describe().family
    by_hand = ByHand(model, family, task, workload, threads, service.precision)
    plain = ByHand(model, family, task, workload, threads, service.precision, packed=False)
    ways = {
        GRPC: service.way(task, workload),
        IDEAL: by_hand.ideal,
        PADDED: by_hand.padded,
        PLAIN: plain.padded,
    }
    turns = take_turns(ways, workload, repeats, note)
    return (
        *(Figure(PART, name, rates, "pairs/s") for name, rates in turns.rates.items()),
        Figure(PART, f"{GRPC} / {IDEAL}", turns.ratios(GRPC, IDEAL), "x", Bar(0.95)),
        Figure(PART, f"{GRPC} / {PADDED}", turns.ratios(GRPC, PADDED), "x", Bar(1.35)),
        Figure(PART, f"{GRPC} / {PLAIN}", turns.ratios(GRPC, PLAIN), "x"),
        Figure(PART, "scores: apart from the ideal loop's", (turns.apart(GRPC, IDEAL),)),
        Figure(PART, "scores: apart from those padded", (turns.apart(GRPC, PADDED),)),
    )
