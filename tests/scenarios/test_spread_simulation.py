"""`simulate` over processes of this machine and over a Ray cluster: the same prompt, bit for bit."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fedbbpt.federation.run_folder import METRICS, PROMPT
from fedbbpt.job.job_file import job_text
from tests.slow import slow_except
from tests.tiny_run import job

PROCESSES, RAY = "--processes 2", "--engine ray"


def simulated(job_file: Path, folder: Path, *options: str) -> tuple[bytes, str]:
    """Returns the bytes of the prompt and the metrics that a simulation ends with."""
    command = [sys.executable, "-m", "fedbbpt", "simulate", str(job_file), "--out", str(folder), "--json", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return (folder / PROMPT).read_bytes(), (folder / METRICS).read_text()


@pytest.mark.parametrize("options", slow_except([PROCESSES, RAY], PROCESSES))
def test_processes_end_with_the_bits_of_one_process(data: Path, tmp_path: Path, options: str) -> None:
    if options == RAY and importlib.util.find_spec("ray") is None:
        pytest.skip("the ray extra is not installed")
    job_file = tmp_path / "job.toml"
    job_file.write_text(job_text(job(data)))
    assert simulated(job_file, tmp_path / "spread", *options.split()) == simulated(job_file, tmp_path / "alone")
