"""The download of an auxiliary model: in chunks, over a connection that breaks, and never of a wrong file."""

import asyncio
import hashlib
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import grpc
import numpy as np
import pytest

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.codecs import LINKS
from fedbbpt.errors import ChecksumMismatch, InvalidInput
from fedbbpt.federation import assemble
from fedbbpt.federation.splits import Splits
from fedbbpt.host.progress import shown_by
from fedbbpt.job.settings import run_settings
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.memory_store import MemoryStore
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import CoordinatorServer, serve
from fedbbpt.types import Auxiliary, Hello
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from fedbbpt.wire.channel import connect
from fedbbpt.wire.traffic import TrafficMeter
from tests.federation import AdvancingLoop
from tests.progress import Kept
from tests.robustness.proxy import At, Proxy, Then, Way

T = TypeVar("T")

CONTENT = np.random.default_rng(0).bytes(3_000_001)
ANNOUNCED = Auxiliary(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
HELLO = Hello("anna", "key", 5, frozenset(LINKS))


class Line:
    """A coordinator that has an auxiliary model, behind a proxy."""

    def __init__(self, splits: Splits, path: Path, loop: AdvancingLoop, announced: Auxiliary) -> None:
        settings = replace(run_settings(splits.job, "run-1"), auxiliary=announced)
        coordinator = assemble.coordinator(splits.job, settings, MemoryStore())
        self._loop = loop
        self._serving: CoordinatorServer = self._run(
            serve(Runs([LiveRun(coordinator, TrafficMeter(), auxiliary=path)]))
        )
        self.proxy = Proxy(self._serving.port)
        self.port = self._run(self.proxy.start())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def link(self) -> RemoteCoordinator:
        link = RemoteCoordinator(connect(f"127.0.0.1:{self.port}"), pause=lambda seconds: None)
        link.join(HELLO)
        return link

    def close(self) -> None:
        self._run(self.proxy.stop())
        self._run(self._serving.stop(0.0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "made.safetensors"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def line(splits: Splits, file: Path, server_loop: AdvancingLoop) -> Iterator[Line]:
    line = Line(splits, file, server_loop, ANNOUNCED)
    yield line
    line.close()


def test_a_client_downloads_the_model_once(line: Line, tmp_path: Path) -> None:
    kept = Kept()
    with shown_by(kept):
        path = line.link().fetch_auxiliary(ANNOUNCED, tmp_path / "state")
    assert kept.works == [("downloading the auxiliary model", len(CONTENT), "bytes")]
    assert kept.done["downloading the auxiliary model"] == len(CONTENT)
    assert path.read_bytes() == CONTENT
    assert line.proxy.passed[Way.DOWN] > len(CONTENT)
    before = line.proxy.passed[Way.DOWN]
    assert line.link().fetch_auxiliary(ANNOUNCED, tmp_path / "state") == path
    assert line.proxy.passed[Way.DOWN] - before < 10_000


@pytest.mark.parametrize("byte", [300_000, 1_500_000, 2_999_000])
@pytest.mark.parametrize(("then", "flipped"), [(Then.CUT, 0), (Then.GO_ON, 1)], ids=["cut", "changed"])
def test_a_bad_connection_does_not_damage_the_file(
    line: Line, tmp_path: Path, byte: int, then: Then, flipped: int
) -> None:
    fault = line.proxy.fault = At(Way.DOWN, byte, then, flipped)
    assert line.link().fetch_auxiliary(ANNOUNCED, tmp_path).read_bytes() == CONTENT
    assert fault.struck


def test_a_restarted_client_downloads_the_rest_only(line: Line, tmp_path: Path) -> None:
    (tmp_path / f"auxiliary-{ANNOUNCED.sha256}.partial").write_bytes(CONTENT[:2_500_000])
    assert line.link().fetch_auxiliary(ANNOUNCED, tmp_path).read_bytes() == CONTENT
    assert line.proxy.passed[Way.DOWN] < 600_000


def test_a_part_of_another_file_is_discarded(line: Line, tmp_path: Path) -> None:
    (tmp_path / f"auxiliary-{ANNOUNCED.sha256}.partial").write_bytes(bytes(1_000_000))
    assert line.link().fetch_auxiliary(ANNOUNCED, tmp_path).read_bytes() == CONTENT


def test_a_file_with_another_digest_is_refused(line: Line, tmp_path: Path) -> None:
    other = Auxiliary(len(CONTENT), hashlib.sha256(b"another").hexdigest())
    with pytest.raises(ChecksumMismatch, match="not the announced one"):
        line.link().fetch_auxiliary(other, tmp_path / "state")
    assert list((tmp_path / "state").iterdir()) == []


def test_a_file_that_ends_too_early_is_an_error(line: Line, file: Path, tmp_path: Path) -> None:
    link = line.link()
    file.write_bytes(CONTENT[:1_000_000])
    with pytest.raises(
        InvalidInput, match="auxiliary: the coordinator's auxiliary model ends at byte 1000000; the file"
    ):
        link.fetch_auxiliary(ANNOUNCED, tmp_path / "state")


def test_an_offset_beyond_the_end_is_refused(line: Line) -> None:
    stub = CoordinatorServiceStub(connect(f"127.0.0.1:{line.port}"))
    join = pb.JoinRequest(protocol_version=1, client_id="bert", client_key="key", codecs=[pb.CODEC_FLOAT32], examples=3)
    response = stub.Join(join)
    assert response.auxiliary.total_bytes == len(CONTENT)
    assert response.auxiliary.sha256.hex() == ANNOUNCED.sha256
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.GetAuxiliary(pb.GetAuxiliaryRequest(session=response.session, offset=len(CONTENT) + 1)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert list(stub.GetAuxiliary(pb.GetAuxiliaryRequest(session=response.session, offset=len(CONTENT)))) == []
