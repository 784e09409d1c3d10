"""Web applications on real ports: TLS with a token, a taken port, and an end with open streams."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedbbpt.errors import PortTaken
from fedbbpt.federation.splits import Splits
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.web.dashboard.app import Sources, dashboard
from fedbbpt.web.serving import WebAddress, WebServer
from tests.federation import AdvancingLoop, OverGrpc, Security

TOKENS = [Token("ann", Role.OBSERVER, token_digest("seen"))]


@contextmanager
def _running(server: WebServer) -> Iterator[WebServer]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


def _get(url: str, context: ssl.SSLContext | None = None, token: str = "") -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context or ssl.create_default_context())
    )
    try:
        with opener.open(urllib.request.Request(url, headers=headers)) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_a_token_over_tls_is_accepted_until_it_is_replaced(security: Security) -> None:
    context = ssl.create_default_context(cafile=str(security.client.ca))
    address = WebAddress("127.0.0.1", tls=security.server)
    with _running(WebServer(dashboard(Sources()), address, tokens=TOKENS)) as server:
        url = f"{server.url}/api/site"
        assert url.startswith("https://")
        assert [_get(url, context), _get(url, context, "seen")] == [401, 200]
        server.reload([])
        assert _get(url, context, "seen") == 401


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(PortTaken):
        WebServer(dashboard(Sources()), WebAddress("127.0.0.1", taken.getsockname()[1]))


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OverGrpc]:
    running = OverGrpc(splits, tmp_path / "run.db", server_loop)
    yield running
    running.close()


def test_sigterm_ends_a_dashboard_with_open_streams(tmp_path: Path, federation: OverGrpc) -> None:
    words = [sys.executable, "-m", "fedbbpt", "dashboard", "--coordinator", f"127.0.0.1:{federation.port}"]
    with subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        url = running.stdout.readline().removeprefix("dashboard: ").strip()
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{url}api/run") as stream:
            assert stream.readline().startswith(b"retry:")
            os.kill(running.pid, signal.SIGTERM)
            assert b"event: end" not in stream.read(), "the run has not ended"
        assert (running.wait(), running.stderr.read()) == (128 + signal.SIGTERM, "")
