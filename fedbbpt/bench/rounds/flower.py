"""The same rounds on Flower's deployment engine, installed into an environment of its own.

Two SuperNodes answer messages of 500 float32 numbers with the same numbers, without TLS and with the state in memory.
"""

import json
import os
import signal
import socket
import subprocess
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fedbbpt.bench.rounds.measuring import Progress
from fedbbpt.errors import ChildFailed

VERSION = "1.42.0"
NODES = 2
ROUND_SECONDS = 120.0
"""A round that takes longer than this has failed."""

_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "rounds"
version = "1.0.0"
description = "Rounds without computation"
license = "Apache-2.0"
dependencies = ["flwr"]
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "bench"
[tool.flwr.app.components]
serverapp = "rounds.server:app"
clientapp = "rounds.client:app"
[tool.flwr.app.config]
rounds = 3
nodes = 2
dim = 500
times = ""
"""
_SERVER = """
import json, time
from pathlib import Path
import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    config = context.run_config
    while len(nodes := list(grid.get_node_ids())) < config["nodes"]:
        time.sleep(0.1)
    for _ in range(config["rounds"]):
        begun = time.perf_counter()
        content = RecordDict({"arrays": ArrayRecord([np.zeros(config["dim"], np.float32)])})
        messages = [Message(content=content, message_type="train", dst_node_id=node) for node in nodes]
        replies = list(grid.send_and_receive(messages))
        assert len(replies) == len(nodes) and all(reply.has_content() for reply in replies)
        with Path(config["times"]).open("a") as file:
            file.write(json.dumps(time.perf_counter() - begun) + "\\n")
"""
_CLIENT = """
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message, context):
    return Message(content=RecordDict({"arrays": message.content["arrays"]}), reply_to=message)
"""


def measure(folder: Path, dim: int, rounds: int, progress: Progress) -> list[float]:
    """Returns the seconds of each round. Raises ChildFailed if Flower cannot be installed, or a round fails."""
    progress(f"installing flwr {VERSION}")
    programs = _install(folder / "environment")
    app, times = folder / "app", folder / "times"
    (app / "rounds").mkdir(parents=True)
    for name, text in {"server.py": _SERVER, "client.py": _CLIENT, "__init__.py": ""}.items():
        (app / "rounds" / name).write_text(text)
    (app / "pyproject.toml").write_text(_PROJECT)
    port, home = _free_port(), folder / "home"
    home.mkdir()
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    environment = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    link = ["flower-superlink", "--insecure", "--port", str(port), "--disable-runtime-dependency-installation"]
    node = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}"]
    commands = [link, *([*node, "--port", str(_free_port())] for _ in range(NODES))]
    config = f'rounds={rounds} nodes={NODES} dim={dim} times="{times}"'
    progress(f"Flower's deployment engine, {NODES} nodes")
    with _running(commands, environment, folder):
        _submit(["flwr", "run", str(app), "bench", "--run-config", config], environment)
        return _await(times, rounds)


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("127.0.0.1", 0))
        port: int = attempt.getsockname()[1]
        return port


def _install(place: Path) -> Path:
    """Installs Flower and returns the folder of its programs."""
    venv.create(place, with_pip=True)
    pip = [str(place / "bin" / "pip"), "install", "--quiet", f"flwr=={VERSION}"]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode:
        fix = "a package index that has it"
        raise ChildFailed(f"flwr {VERSION} cannot be installed:\n{installed.stderr[-500:]}", where="--against", fix=fix)
    return place / "bin"


@contextmanager
def _running(commands: Sequence[Sequence[str]], environment: dict[str, str], folder: Path) -> Iterator[None]:
    """Runs Flower's services for the block. Each has a process group, because it starts processes of its own."""
    with (folder / "flower.log").open("wb") as log:
        started = [
            subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
            for command in commands
        ]
        try:
            yield
        finally:
            for process in started:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _submit(command: Sequence[str], environment: dict[str, str]) -> None:
    give_up = time.monotonic() + ROUND_SECONDS
    while True:
        submitted = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not submitted.returncode:
            return
        if time.monotonic() > give_up:
            raise ChildFailed(f"flwr run failed:\n{submitted.stdout[-500:]}", where="--against")
        time.sleep(0.5)  # the SuperLink is starting


def _await(times: Path, rounds: int) -> list[float]:
    give_up = time.monotonic() + ROUND_SECONDS * (rounds + 1)
    while True:
        found = [json.loads(line) for line in times.read_text().splitlines()] if times.exists() else []
        if len(found) == rounds:
            return found
        if time.monotonic() > give_up:
            raise ChildFailed(f"Flower has finished {len(found)} of {rounds} rounds", where="--against")
        time.sleep(0.5)
