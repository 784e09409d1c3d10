"""Remembers the chosen precision of each model in the user's cache, for this processor and this version of torch."""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fedbbpt.host.cache import cache_folder
from fedbbpt.host.files import atomic_write
from fedbbpt.types import Precision

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """The precision that was taken, and the figures that decided it."""

    precision: Precision
    speedup: float
    """How many times as fast bfloat16 is as float32: of the whole model, or of a product if that was enough."""
    moved: float | None
    """How far bfloat16 moves scores, as `choice.moved` has it; None if the product was enough."""


def memory_of(folder: Path, files: Sequence[Path], family: str, device: str) -> Path | None:
    """Returns the file that remembers the choice for a checkpoint on this machine; None if there is no cache for it."""
    stats = [(path.name, (stat := path.stat()).st_size, stat.st_mtime_ns) for path in files]
    machine = [torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor(), _accelerator(device)]
    digest = hashlib.sha256(json.dumps([str(folder.resolve()), stats, family, machine]).encode()).hexdigest()
    try:
        return cache_folder("precision") / f"{digest[:32]}.json"
    except OSError:
        return None


def _processor() -> str:
    """Returns the name of the processor and its instruction sets, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _accelerator(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") and torch.cuda.is_available() else device


def read(memory: Path | None) -> Choice | None:
    """Returns the remembered choice; None if there is none, or the file is damaged."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8")) if memory is not None else None
        return found and Choice(Precision(found["precision"]), float(found["speedup"]), found["moved"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(memory: Path | None, choice: Choice) -> None:
    """Remembers a choice, and warns if it cannot."""
    if memory is None:
        return
    try:
        atomic_write(memory, json.dumps(asdict(choice)) + "\n")
    except OSError as error:
        log.warning("the choice of precision could not be remembered, and may differ at the next start: %s", error)
