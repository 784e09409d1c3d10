"""A service in C++, written from ptm.proto alone, passes the conformance kit and serves a run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.federation.simulation import simulate
from fedbbpt.federation.splits import prepare
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.wire.channel import connect
from tests.processes import END_SECONDS
from tests.reports import dev_losses
from tests.tiny_run import job

SOURCES = Path(__file__).parents[2] / "examples/ptm-cpp"
TOOLS = ("g++", "make", "protoc", "grpc_cpp_plugin", "pkg-config")
PACKAGES = ("grpc++", "protobuf", "libcrypto")


def versions() -> str:
    """Returns the versions of the libraries. Skips the test if a tool or library is missing; in CI, fails instead."""
    without = pytest.fail if os.environ.get("CI") else pytest.skip
    for tool in TOOLS:
        if shutil.which(tool) is None:
            without(f"the service in C++ needs {tool}")
    found = subprocess.run(["pkg-config", "--modversion", *PACKAGES], capture_output=True, text=True, check=False)
    if found.returncode:
        without(f"the service in C++ needs libraries: {found.stderr.splitlines()[0]}")
    return "-".join(found.stdout.split())


@pytest.fixture(scope="module")
def address(pytestconfig: pytest.Config) -> Iterator[str]:
    """Builds the service unless that was done before, starts it, and returns its address."""
    assert pytestconfig.cache is not None
    build = pytestconfig.cache.mkdir(f"linear-ptm-{versions()}")
    make = ["make", f"--jobs={os.cpu_count()}", "-C", str(SOURCES), f"BUILD={build}"]
    made = subprocess.run(make, capture_output=True, text=True, timeout=END_SECONDS, check=False)
    assert made.returncode == 0, made.stderr
    with subprocess.Popen([build / "linear-ptm"], stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        line = service.stdout.readline()
        assert "listens on" in line
        yield line.split()[-1]
        service.terminate()
        assert service.wait(END_SECONDS) == 0, "SIGTERM ends it"


@pytest.mark.slow
def test_service_in_cpp_passes_the_conformance_kit_and_serves_a_run(address: str, data: Path) -> None:
    kit = [sys.executable, "-m", "fedbbpt", "conformance", "ptm", "--ptm", address]
    asked = subprocess.run(kit, capture_output=True, text=True, timeout=END_SECONDS, check=False)
    assert asked.returncode == 0, asked.stdout + asked.stderr

    _, reports = simulate(prepare(job(data, rounds=8, clients=2)), RemotePtm(connect(address)), lambda status: None)
    losses = dev_losses(reports)
    assert losses[-1] < 0.9 * losses[0]
