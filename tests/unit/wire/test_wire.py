"""The wire: tensors, errors, patience, addresses, traffic."""

import math
import socket
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedbbpt import errors
from fedbbpt.errors import (
    ChecksumMismatch,
    FedbbptError,
    InsecureAddress,
    InvalidInput,
    InvalidTensor,
    MessageTooLarge,
    Unavailable,
)
from fedbbpt.v1 import tensor_pb2 as pb
from fedbbpt.wire import status
from fedbbpt.wire.balancing import target
from fedbbpt.wire.channel import connect, is_loopback
from fedbbpt.wire.patience import Patience
from fedbbpt.wire.tensors import CHUNK_BYTES, Assembler, bundle, chunks, from_message, to_message
from fedbbpt.wire.traffic import TrafficMeter

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int32, np.int64, np.uint8]
finite_arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(
        dtype,
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0),
        elements=hnp.from_dtype(np.dtype(dtype), allow_nan=False, allow_infinity=False),
    )
)


@given(finite_arrays)
def test_a_tensor_comes_back_as_it_went(array: np.ndarray) -> None:
    back = from_message(to_message(array), where="x")
    assert back.dtype == array.dtype and back.shape == array.shape and back.tobytes() == array.tobytes()


@given(st.dictionaries(st.text(min_size=1, max_size=5), finite_arrays, max_size=4))
def test_a_bundle_comes_back_as_it_went(arrays: dict[str, np.ndarray]) -> None:
    announced, data = bundle(arrays)
    assembler = Assembler(announced, limit_bytes=len(data))
    for chunk in chunks(data):
        assembler.add(chunk)
    back = assembler.arrays()
    assert {k: (v.dtype, v.shape, v.tobytes()) for k, v in back.items()} == {
        k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()
    }


def test_big_endian_arrays_travel_little_endian() -> None:
    assert to_message(np.array([1.5], ">f4")).data == np.array([1.5], "<f4").tobytes()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(InvalidTensor, match="finite"):
        from_message(to_message(np.array([1.0, bad])), where="z")


@pytest.mark.parametrize(
    "message",
    [
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[2], data=b"\0" * 7),
        pb.Tensor(dtype=pb.D_TYPE_UNSPECIFIED, shape=[1], data=b"\0" * 4),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[-1], data=b""),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[1] * 9, data=b"\0" * 4),
        pb.Tensor(dtype=pb.D_TYPE_FLOAT32, shape=[0, 2**62], data=b""),
    ],
)
def test_impossible_tensors_are_refused(message: pb.Tensor) -> None:
    with pytest.raises(InvalidTensor, match="where it stood"):
        from_message(message, where="where it stood")


def _long_bundle() -> tuple[pb.TensorBundle, list[pb.TensorChunk]]:
    announced, data = bundle({"x": np.arange(CHUNK_BYTES // 4 + 10, dtype=np.float32)})
    return announced, list(chunks(data))


def test_a_changed_chunk_is_noticed() -> None:
    announced, parts = _long_bundle()
    parts[1].data = b"\1" + parts[1].data[1:]
    assembler = Assembler(announced, 1 << 20)
    assembler.add(parts[0])
    with pytest.raises(ChecksumMismatch):
        assembler.add(parts[1])


def test_a_changed_announcement_is_noticed() -> None:
    announced, parts = _long_bundle()
    announced.crc32c ^= 1
    assembler = Assembler(announced, 1 << 20)
    for part in parts:
        assembler.add(part)
    with pytest.raises(ChecksumMismatch):
        assembler.arrays()


def test_a_missing_chunk_is_noticed() -> None:
    announced, parts = _long_bundle()
    assembler = Assembler(announced, 1 << 20)
    with pytest.raises(InvalidTensor, match=r"chunk\.offset"):
        assembler.add(parts[1])
    assembler.add(parts[0])
    with pytest.raises(InvalidTensor, match="ended after"):
        assembler.arrays()


def test_too_much_is_refused_before_a_byte_is_taken() -> None:
    announced, _ = _long_bundle()
    with pytest.raises(MessageTooLarge, match="at most 1000"):
        Assembler(announced, limit_bytes=1000)


def _all_errors() -> list[type[FedbbptError]]:
    found, waiting = [], [FedbbptError]
    while waiting:
        cls = waiting.pop()
        found.append(cls)
        waiting += cls.__subclasses__()
    return found


class _Call(grpc.RpcError, grpc.Call):
    """What a stub raises for a status."""

    def __init__(self, error: FedbbptError) -> None:
        self._status = rpc_status.to_status(status.to_status(error))

    def code(self) -> grpc.StatusCode:
        return self._status.code

    def details(self) -> str:
        return self._status.details

    def trailing_metadata(self) -> tuple[Any, ...]:
        return self._status.trailing_metadata

    def initial_metadata(self) -> tuple[()]:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> float:
        return 0.0

    def cancel(self) -> bool:
        return False

    def add_callback(self, callback: object) -> bool:
        return False


@pytest.mark.parametrize("cls", _all_errors())
def test_every_error_crosses_the_wire_whole(cls: type[FedbbptError]) -> None:
    sent = cls("what", where="field", fix="this instead")
    got = status.from_rpc_error(_Call(sent), errors.PtmUnavailable)
    assert type(got) is cls and (got.what, got.fix) == (sent.what, sent.fix)
    # Where a service keeps its files is nobody's business.
    assert got.where == ("" if issubclass(cls, errors.StoreError) else sent.where)


def test_an_error_that_quotes_its_caller_fits_into_metadata() -> None:
    quoted = errors.InvalidTask("classes " + "x" * 100_000, where="y" * 100_000, fix="z" * 100_000)
    assert status.to_status(quoted).ByteSize() < 4096


def test_overload_says_when_to_try_again_and_a_spent_budget_does_not() -> None:
    def reasons(error: FedbbptError) -> set[str]:
        return {detail.TypeName() for detail in status.to_status(error).details}

    retry = error_details_pb2.RetryInfo.DESCRIPTOR.full_name
    assert retry in reasons(errors.Overloaded("full"))
    assert retry not in reasons(errors.BudgetSpent("spent"))


class Impatient:
    """A caller who gives up after 10 s, on a clock that only its pauses move."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)

    def call(self, *failures: FedbbptError) -> str:
        """The answer that comes after these."""
        left = list(failures)

        def attempt() -> str:
            if left:
                raise _Call(left.pop(0))
            return "answer"

        again = (errors.Overloaded, errors.RateLimited, errors.Unavailable)
        return Patience(10.0, errors.PtmUnavailable, again, lambda: self.now, self.pause).call(attempt)


@pytest.mark.parametrize("error", [errors.Overloaded, errors.RateLimited])
def test_nobody_asks_again_before_the_time_that_he_is_told(error: type[FedbbptError]) -> None:
    caller = Impatient()
    assert caller.call(error("later"), error("later")) == "answer"
    assert len(caller.pauses) == 2 and min(caller.pauses) >= status.RETRY_SECONDS


def test_a_call_that_breaks_after_a_long_time_is_made_again() -> None:
    """Kills: patience that the call itself uses up, where jobs take minutes."""
    caller, broke = Impatient(), _Call(errors.PtmUnavailable("the line broke"))
    ends = iter([broke, None])

    def attempt() -> str:
        caller.now += 1000.0
        if error := next(ends):
            raise error
        return "answer"

    patience = Patience(10.0, errors.PtmUnavailable, (errors.Unavailable,), lambda: caller.now, caller.pause)
    assert patience.call(attempt) == "answer"


def test_nobody_waits_for_what_comes_too_late() -> None:
    caller = Impatient()
    with pytest.raises(errors.RateLimited):
        caller.call(errors.RateLimited("in a while", seconds=11.0))
    assert caller.pauses == []


def test_a_rate_says_how_long_to_wait() -> None:
    caller = Impatient()
    with pytest.raises(errors.RateLimited):
        caller.call(*[errors.RateLimited("in a while", seconds=4.25)] * 9)
    assert caller.pauses and min(caller.pauses) >= 4.25


def test_a_spent_budget_is_not_asked_again() -> None:
    caller = Impatient()
    with pytest.raises(errors.BudgetSpent):
        caller.call(errors.BudgetSpent("spent"))
    assert caller.pauses == []


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("ptm.example.org:7001", "ptm.example.org:7001"),
        ("dns:///ptm.example.org:7001", "dns:///ptm.example.org:7001"),
        ("127.0.0.1:1,localhost:2,127.0.0.1:1", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("[::1]:1,[::1]:2", "ipv6:[::1]:1,[::1]:2"),
        ("127.0.0.1:1,no..name:2", "ipv4:127.0.0.1:1"),
    ],
)
def test_addresses_as_grpc_takes_them(address: str, name: str) -> None:
    found = target(address, tls=False)
    assert found.name == name
    assert (any("round_robin" in str(option) for option in found.options)) == ("," in address or "dns" in address)


@pytest.mark.parametrize(
    ("address", "tls", "error"),
    [
        ("127.0.0.1:1,", False, InvalidInput),
        ("127.0.0.1:1,localhost", False, InvalidInput),
        ("127.0.0.1:1,127.0.0.1:65536", False, InvalidInput),
        ("127.0.0.1:1,localhost:2", True, InvalidInput),
        ("no..name:1,no..name:2", False, Unavailable),
    ],
)
def test_lists_that_cannot_be_one_service_are_refused(address: str, tls: bool, error: type[FedbbptError]) -> None:
    with pytest.raises(error) as raised:
        target(address, tls=tls)
    assert raised.value.where == address and raised.value.fix


@pytest.mark.parametrize("address", ["127.0.0.1:1,10.0.0.1:1", "dns:///ptm.example.org:7001", "10.0.0.1:1"])
def test_a_token_goes_in_clear_to_loopback_only(address: str) -> None:
    with pytest.raises(InsecureAddress):
        connect(address, token="secret")
    connect("127.0.0.1:1,localhost:2", token="secret").close()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.org", False),
    ],
)
def test_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.skipif(not TrafficMeter().supported, reason="only Linux counts the bytes of a socket")
def test_the_kernel_counts_the_bytes_of_a_peer() -> None:
    meter = TrafficMeter()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            served, (host, port) = server.accept()
            with served:
                meter.register(f"ipv4:{host}:{port}")
                client.sendall(b"x" * 1000)
                got = 0
                while got < 1000:
                    got += len(served.recv(4096))
                assert meter.read() == (1000, 0)
    after = meter.read()
    assert after is not None and after[0] == 1000, "a closed connection keeps its count"
