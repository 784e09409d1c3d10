"""A command imports what it needs and no more: a list of commands needs none of them, a question to a service no model.

Nobody times these tests: which modules are imported is what decides how long a command takes to start.
"""

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


@pytest.mark.parametrize(
    "words", [["--version"], ["--help"], ["coordinator", "--help"], ["ptm", "-h"], []], ids=" ".join
)
def test_a_list_of_commands_imports_none_of_them(words: list[str]) -> None:
    modules = _modules_of(words)
    assert not modules & {"numpy", "grpc", "google.protobuf", "asyncio"}
    assert {name for name in modules if name.startswith("fedbbpt.cli.")} == {
        "fedbbpt.cli.command_group",
        "fedbbpt.cli.terminal",
        "fedbbpt.cli.terminal.signals",
        "fedbbpt.cli.tree",
    }


def test_a_question_to_a_coordinator_loads_neither_jobs_nor_models() -> None:
    modules = _modules_of(["status", "--coordinator", "127.0.0.1:no-port"])
    assert "fedbbpt.server.remote" in modules
    assert not modules & {*HEAVY, "scipy", "pandas", "tomlkit", "prometheus_client", "fedbbpt.job.config"}
    assert not {name for name in modules if name.startswith(("fedbbpt.methods", "fedbbpt.ptm.models"))}


def _modules_of(words: list[str]) -> set[str]:
    """Runs `fedbbpt WORDS...` in a fresh interpreter and returns the modules that it has imported at its end."""
    code = f"""
import atexit, sys
atexit.register(lambda: print("\\n", *sys.modules))
sys.argv = ["fedbbpt", *{words!r}]
from fedbbpt.cli import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return set(ended.stdout.splitlines()[-1].split())
