"""Behind a real nginx: a quiet run is not cut, and the limit of nginx for a body is told as what it is.

Needs nginx, from the path or from the variable NGINX, for example of Debian's package.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.errors import MessageTooLarge
from fedbbpt.federation.splits import Splits
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import Examples, TaskSpec
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.channel import connect
from fedbbpt.wire.peers import PTM
from tests.federation import AdvancingLoop, OverGrpc
from tests.processes import free_port
from tests.tiny_run import CLIENTS, undisturbed

NGINX = os.environ.get("NGINX") or shutil.which("nginx") or "/usr/sbin/nginx"
IDLE_SECONDS = 1
HEARTBEAT_SECONDS = 0.3
"""The heartbeat and the idle limit of nginx have the ratio of their defaults, 10 and 60 s, or a worse one."""
QUIET_HEARTBEATS = 17
"""Five idle limits without a task, as five minutes are for 60 s."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(NGINX).exists(), reason="needs nginx, for example NGINX=/usr/sbin/nginx"),
]

CONFIGURATION = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ grpc_pass grpc://127.0.0.1:{target}; {settings} }}
  }}
}}
"""


class Nginx:
    """nginx in front of a service."""

    def __init__(self, folder: Path, target: int, settings: str) -> None:
        self.port = free_port()
        folder.mkdir()
        text = CONFIGURATION.format(folder=folder, port=self.port, target=target, settings=settings)
        (folder / "nginx.conf").write_text(text)
        command = [NGINX, "-p", str(folder), "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Any]:
    running: list[Nginx] = []

    def start(target: int, settings: str) -> int:
        running.append(Nginx(tmp_path / f"nginx-{len(running)}", target, settings))
        return running[-1].port

    yield start
    for one in running:
        one.stop()


def test_a_quiet_run_is_not_cut(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop, nginx: Any) -> None:
    federation = OverGrpc(splits, tmp_path / "run.db", server_loop, heartbeat_seconds=HEARTBEAT_SECONDS)
    try:
        limits = ("grpc_read_timeout", "grpc_send_timeout", "client_body_timeout", "send_timeout")
        port = nginx(federation.port, " ".join(f"{limit} {IDLE_SECONDS}s;" for limit in limits))
        links = [RemoteCoordinator(federation.channel(port)) for _ in range(CLIENTS)]
        watching = RemoteRun(federation.channel(port)).watch()
        next(watching)
        clients = [federation.client(index, link=links[index]) for index in range(CLIENTS)]
        # Its own stream tells how often a heartbeat has come, without any pause of the test's own.
        opening = pb.TakePartRequest(opening=pb.Opening(session=links[0]._session))
        sent: SimpleQueue[pb.TakePartRequest] = SimpleQueue()
        sent.put(opening)
        stream = CoordinatorServiceStub(federation.channel(port)).TakePart(iter(sent.get, None))
        kinds = []
        for _ in range(1 + QUIET_HEARTBEATS):
            kinds.append(next(stream).WhichOneof("event"))
            sent.put(pb.TakePartRequest(heartbeat=pb.Heartbeat()))
        assert kinds == ["task"] + ["heartbeat"] * QUIET_HEARTBEATS
        for _ in range(splits.job.run.rounds + 1):
            for client in clients:
                client.answer()
        assert [client.finished() for client in clients] == [True] * CLIENTS
        assert [status for status, _ in watching][-1].state.ended
        assert federation.course() == undisturbed(splits)
    finally:
        federation.close()


def test_the_limit_of_a_body_is_told_as_what_it_is(ptm_servers: Any, nginx: Any) -> None:
    port = nginx(ptm_servers.start(Engine(Fake(), time.monotonic)), "client_max_body_size 1m;")
    ptm = RemotePtm(connect(f"127.0.0.1:{port}", peer=PTM), patience_seconds=30.0)
    task = ptm.register_task(TaskSpec("{text}", ("a number", "a person")))
    assert ptm.register_examples(task, Examples(("who wrote it",)), 4).count == 1
    texts = tuple(f"{number} " * 1000 for number in range(1000))
    with pytest.raises(MessageTooLarge, match=r"a proxy in between refused.*HTTP 413.*client_max_body_size 0"):
        ptm.register_examples(task, Examples(texts), 4)
