"""Tiny random checkpoints of every family, the PTM service on a port of its own, and a tiny federation's data."""

import asyncio
import hashlib
import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trustme
from hypothesis import settings

from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.ptm.engine import Engine
from fedbbpt.wire.tls import ClientTls, ServerTls
from tests import checkpoints
from tests.checkpoints import save_checkpoint
from tests.command_line import CommandLine, run_command
from tests.federation import AdvancingLoop, Security
from tests.postgres import PostgresServer, programs, running
from tests.tiny_run import job, write_data

# Examples for each law in `make test` and `make test-all`. Without a deadline, a busy machine fails no test.
settings.register_profile("brief", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("brief")

# If a shell starts the tests in the background, they ignore Ctrl-C, and so would all processes that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A company's machine names a proxy in the environment, here one that refuses connections. All services of the tests are
# on loopback, so no call may go through it, whichever process makes it.
os.environ |= dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
for name in ("grpc_proxy", "no_grpc_proxy", "no_proxy", "NO_PROXY"):
    os.environ.pop(name, None)


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[CommandLine]:
    """Runs a command in the test's empty folder, on a terminal of 80 columns."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield lambda *words: run_command(words, monkeypatch, capsys)
    root.handlers[:], root.level = before


@pytest.fixture(scope="session")
def checkpoint(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Returns the folder of a tiny random model, "bert-mlm" or another of tests/checkpoints.py, made when first needed.

    All workers, and later runs with the same libraries, share the folders: tests must copy before they change a file.
    """
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    assert pytestconfig.cache is not None
    recipe = Path(checkpoints.__file__).read_text() + torch.__version__ + transformers.__version__
    made = pytestconfig.cache.mkdir(f"checkpoints-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}")

    def make(name: str) -> Path:
        folder = made / name
        if not folder.exists():
            new = Path(tempfile.mkdtemp(dir=made))
            save_checkpoint(name, new)
            try:
                new.rename(folder)
            except OSError:  # another worker was faster
                shutil.rmtree(new)
        return folder

    return make


@pytest.fixture(scope="session")
def image_classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random classifier of images `[3, 8, 8]` in ONNX, with a file of its labels."""
    onnx = pytest.importorskip("onnx")
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    draw = np.random.default_rng(3)

    def constant(name: str, *shape: int) -> Any:
        return onnx.numpy_helper.from_array(draw.normal(0, 0.6, shape).astype(np.float32), name)

    make = onnx.helper
    nodes = [
        make.make_node("Conv", ["pixels", "kernel"], ["maps"], strides=[2, 2]),
        make.make_node("Relu", ["maps"], ["rectified"]),
        make.make_node("Flatten", ["rectified"], ["flat"]),
        make.make_node("Gemm", ["flat", "weights"], ["logits"]),
    ]
    ends = [
        [make.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)]
        for name, shape in (("pixels", ["batch", 3, 8, 8]), ("logits", ["batch", 4]))
    ]
    parameters = [constant("kernel", 6, 3, 2, 2), constant("weights", 96, 4)]
    graph = make.make_graph(nodes, "tiny", *ends, parameters)
    onnx.save(make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=8), path)
    path.with_suffix(".labels.json").write_text('["cat", "dog", "ship", "truck"]')
    return path


@pytest.fixture(scope="session")
def server_loop() -> Iterator[AdvancingLoop]:
    """An event loop in a thread of its own, for servers that tests call from outside."""
    loop = AdvancingLoop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    asyncio.run_coroutine_threadsafe(loop.shutdown_asyncgens(), loop).result()  # this thread may have a loop that runs
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class PtmServers:
    """PTM services on loopback ports."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._running: dict[int, Any] = {}

    def start(self, engine: Engine, **options: Any) -> int:
        """Starts a service and returns its port, which is the option `port` or a free one."""
        from fedbbpt.ptm.server import serve

        serving = asyncio.run_coroutine_threadsafe(serve(engine, **options), self._loop).result()
        self._running[serving.port] = serving
        return serving.port

    def stop(self, port: int) -> None:
        asyncio.run_coroutine_threadsafe(self._running.pop(port).stop(None), self._loop).result()

    def metrics(self, port: int) -> Any:
        return self._running[port].service.metrics

    def fall_ill(self, port: int) -> None:
        """Reports NOT_SERVING on a service that still answers."""
        asyncio.run_coroutine_threadsafe(self._running[port].health.enter_graceful_shutdown(), self._loop).result()

    def stop_all(self) -> None:
        for port in list(self._running):
            self.stop(port)


@pytest.fixture
def ptm_servers(server_loop: asyncio.AbstractEventLoop) -> Iterator[PtmServers]:
    servers = PtmServers(server_loop)
    yield servers
    servers.stop_all()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the splits of a tiny task."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def splits(data: Path) -> Splits:
    return prepare(job(data))


@pytest.fixture(scope="session")
def security(tmp_path_factory: pytest.TempPathFactory) -> Security:
    """An authority made for this session, and a token."""
    folder = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    for part in certificate.cert_chain_pems:
        part.write_to_path(folder / "chain.pem", append=True)
    return Security(ServerTls(folder / "chain.pem", folder / "key.pem"), ClientTls(folder / "ca.pem"), "secret")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Returns a PostgreSQL server that all tests of a session share."""
    bin = programs()
    if bin is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with running(bin) as server:
        yield server
