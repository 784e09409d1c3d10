"""The published settings of FedSP, on tiny random models of the same architectures."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job, read_job
from fedbbpt.methods.fed_sp import FedSpConfig
from fedbbpt.ptm.models.loading import load
from tests.reports import dev_losses
from tests.slow import slow_except
from tests.tenants import local_ptm

PAPERS = Path(__file__).parents[2] / "experiments" / "papers"


@pytest.mark.parametrize(
    ("file", "architecture", "dim"),
    slow_except(
        [("fed-sp-gpt2-xl-arc-easy.toml", "gpt2", 6_144_000), ("fed-sp-opt-1.3b-arc-easy.toml", "opt", 3_932_160)],
        ("fed-sp-gpt2-xl-arc-easy.toml", "gpt2", 6_144_000),
    ),
)
def test_a_preset_of_fedsp_runs(
    file: str, architecture: str, dim: int, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """Everything is the paper's except sizes, steps and data. The run ends, and the owner has its turn in it."""
    job = read_job(PAPERS / file)
    assert job.space().dim == dim
    assert isinstance(job.method, FedSpConfig)
    assert (job.method.start, job.method.cell, job.method.mode, job.method.distill_steps) == (0, 1, "share", 5000)
    rows = [{"text": f"which place {word} A) this B) that", "label": "ABCD"[i % 4]} for i, word in enumerate(NUMBERS)]
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sections = job.model_dump()
    sections["run"]["rounds"] = 1
    sections["ptm"] |= {"model": str(checkpoint(architecture)), "threads": 1}
    sections["task"]["prompt"] |= {"tokens": 3, "layers": 2, "heads": 4, "width": 8}
    sections["data"] |= {"source": str(tmp_path), "server_share": 0.4}
    sections["method"] |= {"distill_steps": 2, "local_steps": 2}
    sections["cohort"]["clients"] = 2
    tiny = Job.model_validate(sections)
    ptm = local_ptm(load(tiny.ptm.model, threads=1))
    result, reports = simulate(prepare(tiny), ptm, lambda status: None)
    assert len(reports) == 2 and all(map(math.isfinite, dev_losses(reports)))
    assert result.z.shape == (2 * 2 * 4 * 3 * 8,)


NUMBERS = "one two long short good bad great fine dull very in paris film story book person".split()
