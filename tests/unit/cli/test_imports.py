"""A coordinator or a client is light: what starts it imports no model, data or database library."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "pyarrow", "matplotlib", "sqlalchemy")


@pytest.mark.parametrize(
    "module",
    [
        "fedbbpt.cli",
        "fedbbpt.client.remote",
        "fedbbpt.server.service",
        "fedbbpt.ptm.service",
        "fedbbpt.federation.simulation",
    ],
)
def test_importing_a_role_loads_no_heavy_library(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == ""


def test_grpc_stays_at_the_edges() -> None:
    code = "import sys, fedbbpt.federation.simulation, fedbbpt.job.config; print('grpc' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
