"""docs/protocol.md is enough: a client that uses nothing but the protos ends with the prompt that ours ends with."""

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation import assemble
from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import serve
from fedbbpt.types import Examples, LabelledExamples
from fedbbpt.wire.traffic import TrafficMeter
from tests.reports import dev_losses
from tests.tenants import local_ptm

ROUNDS = 4
JOB = Job.model_validate(
    {
        "run": {"rounds": ROUNDS, "seed": 3},
        "task": {"labels": ("visits", "billing"), "prompt": {"dim": 7, "offsets": True}},
        "method": {"name": "fed-cma", "step": "ranks"},
        "cohort": {"clients": 1},
    }
)
EXAMPLE = Path(__file__).parents[2] / "examples/client_from_protos.py"


def example() -> Any:
    spec = importlib.util.spec_from_file_location("client_from_protos", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_client_from_protos_ends_with_the_same_prompt(
    server_loop: asyncio.AbstractEventLoop, ptm_servers: Any, tmp_path: Path
) -> None:
    words = ("parking hours", "charges payments")
    texts = tuple(f"{words[i * i % 3 % 2]} number {i}" for i in range(24))
    data = LabelledExamples(Examples(texts), np.array([i * i % 3 % 2 for i in range(24)]))
    write_jsonl(tmp_path / "data.jsonl", data, JOB.task.labels)
    rows = np.arange(len(data))
    dev, train = data.take(rows[::4]), data.take(rows[rows % 4 > 0])
    splits = Splits(JOB, (train,), (dev,), dev, server=dev.take(rows[:0]), titles=("0",))
    expected, _ = simulate(splits, local_ptm(Fake()), lambda status: None)

    ptm_port = ptm_servers.start(Engine(Fake(), lambda: 0.0))
    coordinator = assemble.coordinator(JOB, run_settings(JOB, "run", f"127.0.0.1:{ptm_port}"), MemoryStore())
    serving = asyncio.run_coroutine_threadsafe(
        serve(Runs([LiveRun(coordinator, TrafficMeter())])), server_loop
    ).result()
    try:
        assert example().main(f"127.0.0.1:{serving.port}", str(tmp_path / "data.jsonl")) == ROUNDS + 1
    finally:
        asyncio.run_coroutine_threadsafe(serving.stop(0.0), server_loop).result()
    result = coordinator.result()
    # The example's mathematical library may round a logarithm differently.
    np.testing.assert_allclose(result.z, expected.z, rtol=1e-6)
    assert result.measured.round == expected.measured.round > 0
    assert result.measured.queries == expected.measured.queries
    np.testing.assert_allclose(dev_losses([result.measured]), dev_losses([expected.measured]), rtol=1e-6)
