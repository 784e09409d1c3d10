"""The examples run, and the own method of one of them ends over gRPC with the prompt that its simulation finds."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedbbpt
from examples import own_method
from fedbbpt.errors import PluginMissing
from fedbbpt.federation import assemble
from fedbbpt.federation.run_folder import PROMPT
from fedbbpt.federation.splits import prepare
from fedbbpt.job.job_file import job_text
from fedbbpt.types import RunState
from tests.federation import AdvancingLoop, OverGrpc
from tests.plugins import write_package
from tests.tiny_run import job

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["simulate", "own_method", "own_backend"])
def test_an_example_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
    assert "round 5: dev loss" in capsys.readouterr().out


def test_an_own_method_runs_over_grpc_as_in_its_simulation(data: Path, tmp_path: Path) -> None:
    tables = {
        "run": {"name": "cem", "rounds": 3},
        "ptm": {"model": "fake"},
        "task": {"prompt": {"tokens": 4, "dim": 6}},
        "data": {"source": str(data), "shots_per_class": 0, "dev_shots_per_class": 0, "partition": "iid"},
        "cohort": {"clients": 2},
        "method": {"name": "fed-cem", "population": 6},
    }
    job = fedbbpt.make_job(tables, methods=[own_method.METHOD])
    package = write_package(tmp_path, "cem", {"fedbbpt.methods": {"fed-cem": "examples.own_method:METHOD"}})
    (tmp_path / "job.toml").write_text(job_text(job))
    path = os.pathsep.join([str(package), str(ROOT)])
    command = [sys.executable, "-m", "fedbbpt", "run", "job.toml", "--out", "run", "--json"]
    ran = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    simulated = fedbbpt.simulate(job)
    simulated.finish()
    found = fedbbpt.load_prompt(tmp_path / "run" / PROMPT)
    np.testing.assert_array_equal(found.z, simulated.result().z)
    assert np.any(found.z), "the search has moved"
    assert found.card == simulated.prompt().card


def test_a_client_without_the_method_leaves_and_says_what_it_needs(
    data: Path, tmp_path: Path, server_loop: AdvancingLoop
) -> None:
    method = own_method.Config(population=6)
    own = fedbbpt.make_job({"method": {"name": "fed-cem"}}, methods=[own_method.METHOD])
    tiny = job(data)
    splits = prepare(own.model_copy(update={"task": tiny.task, "data": tiny.data, "method": method}))
    federation = OverGrpc(splits, tmp_path / "run.db", server_loop)
    try:
        with pytest.raises(PluginMissing, match=r"method 'fed-cem', version 1, which is not installed here"):
            assemble.join(federation.link(), assemble.hello("lonely", "key", 5))
        status = next(federation.watch())[0]
        assert status.state is RunState.WAITING
        assert status.members == ()
    finally:
        federation.close()
