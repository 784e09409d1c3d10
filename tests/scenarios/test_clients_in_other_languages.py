"""Clients in other languages, written from docs/protocol.md, take part in runs beside those of this package.

A federation of one such client and of Python clients ends with the prompt of a simulation, bit for bit.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.federation.assemble import client_name
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.job.config import Job
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from tests.federation import AdvancingLoop, OverGrpc
from tests.processes import END_SECONDS
from tests.tiny_run import CLIENTS, Course, fake_ptm, job, undisturbed

PROFILES = ("core", "fed-cma", "fed-bpt", "fed-readout")
READ = ("../../protos", "../../fedbbpt/conformance/vectors")
"""What the builds and the unit tests of the clients read besides their own files."""
BUILD_SECONDS = 900.0
pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_SECONDS)]

ROOT = Path(__file__).parents[2]
RUNS: dict[str, dict[str, Any]] = {
    "ranks": {"method": {"name": "fed-cma", "step": "ranks", "population": 6, "sigma": 0.5}},
    "candidates": {"method": {"name": "fed-cma", "step": "ranks", "population": 6, "covariance": "full"}},
    "newton": {
        "method": {"name": "fed-cma", "step": "newton", "population": 4, "sigma": 0.5},
        "prompt": {"tokens": 4, "dim": 6, "offsets": True},
        "codec": {"uplink": "float16"},
    },
    "readout": {"method": {"name": "fed-readout"}, "prompt": {"kind": "none"}},
    "search": {
        "method": {"name": "fed-bpt", "local_iterations": 3, "sigma": 0.5, "local_covariance": "diagonal"},
        "codec": {"uplink": "float32", "downlink": "float16"},
    },
    "orders": {
        "method": {
            "name": "fed-bpt",
            "local_iterations": 3,
            "local_covariance": "identity",
            "uplink": "ranks",
            "perturb_rate": 0.0,
            "norm_limit": 2.0,
        },
    },
    "largest": {
        "method": {"name": "fed-bpt", "local_iterations": 3, "sigma": 0.5, "local_covariance": "identity"},
        "codec": {"uplink": "topk+float16", "downlink": "topk+float16", "kept": 0.4},
    },
    "views": {
        "method": {"name": "fed-cma", "step": "newton", "population": 4, "readout": {"rounds": 2, "every": 2}},
        "task": {"columns": ["person", "thing"], "views": ["", "In short:"]},
        "codec": {"uplink": "float32"},
    },
}
"""Parts of the jobs of runs by what is special about them."""


def needed(*tools: str) -> None:
    """Skips the test without a tool; in CI, fails instead."""
    for tool in tools:
        if shutil.which(tool) is None:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this client needs {tool}")


def checked(words: Sequence[str], folder: Path, seconds: float = END_SECONDS) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def built(pytestconfig: pytest.Config, sources: Path, build: Callable[[Path], None]) -> Path:
    """Returns a folder in which the sources are built: once for all workers, and until a source changes."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", ".", *READ],
        cwd=sources, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    digest = hashlib.sha256(b"".join((sources / name).read_bytes() for name in sorted(listed)))
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir(f"client-{sources.name}-{digest.hexdigest()[:16]}")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            for name in listed:
                if not name.startswith(".."):
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(sources / name, folder / name)
            build(folder)
            (folder / "done").touch()
    return folder


@pytest.fixture(scope="session")
def typescript(pytestconfig: pytest.Config) -> list[str]:
    """The command of the client in TypeScript."""
    needed("node", "npm")

    def build(folder: Path) -> None:
        # The tests' environment names a proxy that refuses connections.
        direct = ["env", "-u", "http_proxy", "-u", "https_proxy"]
        checked([*direct, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"], folder)
        checked(["env", f"PROTOS={ROOT / 'protos'}", "npm", "run", "build"], folder)
        checked(["env", f"VECTORS={ROOT / 'fedbbpt/conformance/vectors'}", "npm", "test"], folder)

    return ["node", str(built(pytestconfig, ROOT / "clients/typescript", build) / "dist/main.js")]


@pytest.fixture(scope="session")
def cpp(pytestconfig: pytest.Config) -> list[str]:
    """The command of the client in C++."""
    needed("g++", "make", "protoc", "grpc_cpp_plugin", "pkg-config")

    def build(folder: Path) -> None:
        jobs = f"--jobs={os.cpu_count()}"
        checked(["make", jobs, f"PROTOS={ROOT / 'protos'}", "build/fedbbpt-client", "test"], folder, BUILD_SECONDS)

    return [str(built(pytestconfig, ROOT / "clients/cpp", build) / "build/fedbbpt-client")]


@pytest.fixture(params=["typescript", "cpp"])
def client(request: pytest.FixtureRequest) -> list[str]:
    """The command of a client in another language."""
    command: list[str] = request.getfixturevalue(request.param)
    return command


@pytest.mark.parametrize("run", RUNS)
def test_a_mixed_federation_ends_with_the_simulated_prompt(
    run: str, client: list[str], data: Path, tmp_path: Path, server_loop: AdvancingLoop, ptm_servers: Any
) -> None:
    splits = prepare(job_of(data, **RUNS[run]))
    ptm = f"127.0.0.1:{ptm_servers.start(Engine(Fake(), lambda: 0.0))}"
    course = mixed_course(client, splits, tmp_path, server_loop, ptm)
    expected = undisturbed(splits)
    assert course.z == expected.z
    assert course.clients == expected.clients
    for report, other in zip(course.reports, expected.reports, strict=True):
        assert (report.queries, report.dev_examples) == (other.queries, other.dev_examples)
        assert report.dev_loss == pytest.approx(other.dev_loss, rel=1e-6)
        assert report.dev_accuracy == other.dev_accuracy


def test_a_client_passes_the_conformance_kit(client: list[str], tmp_path: Path) -> None:
    kit = [sys.executable, "-m", "fedbbpt", "conformance", "client", "--at-once", "4"]
    kit += [word for profile in PROFILES for word in ("--profile", profile)]
    names = ("coordinator", "ptm", "data", "dev", "state")
    options = [word for name in names for word in (f"--{name}", f"{{{name}}}")]
    checked([*kit, "--", *client, *options, "--name", "{client}"], tmp_path)


def job_of(data: Path, method: dict[str, Any], **sections: dict[str, Any]) -> Job:
    """Returns a tiny job with some of its sections changed."""
    tiny = job(data, rounds=10).model_dump()
    tiny["method"] = method
    tiny["codec"] = sections.get("codec", {})
    tiny["task"] |= {"prompt": sections["prompt"]} if "prompt" in sections else {}
    tiny["task"] |= sections.get("task", {})
    return Job.model_validate(tiny)


def mixed_course(command: list[str], splits: Splits, folder: Path, server_loop: AdvancingLoop, ptm: str) -> Course:
    """Returns the course of a run whose first client is the command, and whose others are this package's."""
    for name, part in (("data", splits.train[0]), ("dev", splits.dev[0])):
        write_jsonl(folder / f"{name}.jsonl", part, splits.job.task.labels)
    federation = OverGrpc(splits, folder / "run.db", server_loop)

    def work(index: int) -> None:
        if index:
            own = federation.client(index, ptm=fake_ptm())
            own.agent.run(own.link, wait=lambda: None)
            return
        words = ["--coordinator", f"127.0.0.1:{federation.port}", "--ptm", ptm, "--name", client_name(0)]
        files = ["--data", "data.jsonl", "--dev", "dev.jsonl", "--state", "state"]
        checked([*command, *words, *files], folder)

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(work, range(CLIENTS)))
    course = federation.course()
    federation.close()
    return course
