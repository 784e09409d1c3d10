"""The same job as real processes, over gRPC, and in one process without a network: the same prompt, bit for bit."""

import itertools
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedbbpt.codecs import CODECS
from fedbbpt.job_file import job_text
from fedbbpt.methods import METHODS
from fedbbpt.outcome import METRICS, PROMPT, SUMMARY
from fedbbpt.splits import prepare
from tests.federation import CLIENTS, AdvancingLoop, OverGrpc, engine, job, undisturbed

TIMED = {"seconds", "bytes_up", "bytes_down", "bytes_up_per_client_round", "bytes_down_per_client_round"}


@pytest.mark.parametrize(("method", "codec"), list(itertools.product(METHODS, CODECS)))
def test_clients_over_grpc_end_with_the_simulated_prompt(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop, method: str, codec: str
) -> None:
    splits = prepare(job(data, method=method, codec=codec))
    federation = OverGrpc(splits, tmp_path / "run.db", server_loop)

    def work(index: int) -> None:
        client = federation.client(index, ptm=engine())
        client.agent.run(client.link, wait=lambda: None)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(work, range(CLIENTS)))
    assert federation.course() == undisturbed(splits)
    federation.close()


@pytest.mark.parametrize(("method", "codec"), list(zip(METHODS, CODECS, strict=True)))
def test_processes_end_with_the_simulated_prompt(data: Path, tmp_path: Path, method: str, codec: str) -> None:
    """All that both commands leave is the same, but for times and bytes."""
    job_file = tmp_path / "job.toml"
    job_file.write_text(job_text(job(data, method=method, codec=codec)))
    for command in ("run", "simulate"):
        arguments = [command, str(job_file), "--out", str(tmp_path / command), "--json"]
        done = subprocess.run([sys.executable, "-m", "fedbbpt", *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == json.loads((tmp_path / command / SUMMARY).read_text())
    run, simulated = tmp_path / "run", tmp_path / "simulate"
    assert (run / PROMPT).read_bytes() == (simulated / PROMPT).read_bytes()
    for name in (SUMMARY, METRICS):
        assert _timeless(run / name) == _timeless(simulated / name)


def _timeless(path: Path) -> list[dict[str, object]]:
    text = path.read_text()
    objects = map(json.loads, text.splitlines() if path.suffix == ".jsonl" else [text])
    return [{name: value for name, value in each.items() if name not in TIMED} for each in objects]
