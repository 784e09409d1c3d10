"""Plays one case: starts both services and the client, gives it the tasks, and lets the faults happen."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbbpt.conformance.client import broadcasts, material
from fedbbpt.conformance.client.black_box import BlackBox
from fedbbpt.conformance.client.cases import Case, Fault, Round
from fedbbpt.conformance.client.command import ClientProcess, filled
from fedbbpt.conformance.client.coordinator import Given, MockCoordinator
from fedbbpt.conformance.client.findings import Findings
from fedbbpt.conformance.client.judge import Judge
from fedbbpt.conformance.client.methods.answer import Asked
from fedbbpt.conformance.client.updates import Sent
from fedbbpt.conformance.results import Broken, Skipped
from fedbbpt.ptm.v1.ptm_pb2_grpc import add_PtmServiceServicer_to_server
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1.coordinator_pb2_grpc import add_CoordinatorServiceServicer_to_server
from fedbbpt.wire.channel import bind, by_name, create_server
from fedbbpt.wire.status import RETRY_SECONDS

HOST = "127.0.0.1"
HEARTBEATS_AWAITED = 2
LEAST_PAUSE_SECONDS = 0.02
"""The least time between two attempts, on average. The pauses of docs/protocol.md are longer, and calls shorter."""
OVERLOADED, SHARE_OF_DELAY = ("StoreFull", "Overloaded"), 0.95
"""Errors whose RetryInfo a client must obey, and the share of its delay that must pass, as clocks differ."""
_RECEIPTS = {
    "counted": pb.RECEIPT_COUNTED,
    "duplicate": pb.RECEIPT_DUPLICATE,
    "too-late": pb.RECEIPT_TOO_LATE,
    "refused": pb.RECEIPT_REFUSED,
}


def _each(faults: Sequence[Fault]) -> list[Fault]:
    """Returns each fault as often as it happens."""
    return [fault for fault in faults for _ in range(fault.times)]


class Trial:
    """One case with one client."""

    def __init__(self, case: Case, command: Sequence[str], folder: Path, seconds: float) -> None:
        """
        Args:
            case: The case.
            command: The client's command, with placeholders.
            folder: An empty folder for the client's files.
            seconds: How long anything that must happen may take.
        """
        self._case, self._command, self._folder = case, command, folder
        self._findings = Findings(seconds)
        self._run = material.joined(case)
        self._labels = material.examples(self._run)
        self._coordinator = MockCoordinator(self._run, _each(case.faults), self._findings)
        self._box = BlackBox(case, self._run, self._labels, self._findings)
        self._coordinator.happen = self._box.happen = self._happen
        self._judge = Judge()
        self._dev_given = any("{dev}" in word for word in command)
        self._servers: dict[str, Any] = {}
        self._ports = {"coordinator": 0, "ptm": 0}
        self._client: ClientProcess | None = None
        self._expecting_end = False

    async def play(self) -> None:
        """Plays the case. Raises Broken or Skipped."""
        state = self._folder / "state"
        state.mkdir()
        material.write(self._run, self._folder)
        try:
            await self._serve("ptm")
            self._run.ptm_address = f"{HOST}:{self._ports['ptm']}"
            await self._serve("coordinator")
            await self._start_client()
            await self._play()
        except Broken as broken:
            words = self._client.last_words() if self._client else ""
            raise Broken(f"{broken}; the client's last words: {words}" if words else str(broken)) from None
        finally:
            self._expecting_end = True
            if self._client is not None:
                await self._client.kill()
            for server in self._servers.values():
                await server.stop(0)

    async def _serve(self, name: str) -> None:
        server = create_server(HOST)
        if name == "ptm":
            add_PtmServiceServicer_to_server(self._box, by_name(server))
        else:
            add_CoordinatorServiceServicer_to_server(self._coordinator, by_name(server))
        self._ports[name] = bind(server, HOST, self._ports[name])
        await server.start()
        self._servers[name] = server

    async def _start_client(self) -> None:
        values = {
            "coordinator": f"{HOST}:{self._ports['coordinator']}",
            "ptm": f"{HOST}:{self._ports['ptm']}",
            "data": str(self._folder / "data.jsonl"),
            "dev": str(self._folder / "dev.jsonl"),
            "client": "kit.client-1",
            "state": str(self._folder / "state"),
        }
        self._client = await ClientProcess.start(
            filled(self._command, values), self._folder / "client.log", self._client_ended
        )

    def _client_ended(self) -> None:
        if not self._expecting_end:
            self._findings.broken("the client has ended before the run did")
        self._findings.changed()

    # The course of a case

    async def _play(self) -> None:
        findings, coordinator, case = self._findings, self._coordinator, self._case
        if not case.rounds:
            self._expecting_end = case.ends == "by-itself"
        await findings.until(lambda: coordinator.request is not None, "Join")
        request = coordinator.request
        assert request is not None
        missing = [link for link in case.codecs if pb.Codec.Value(link) not in request.codecs]
        if missing:
            raise Skipped(f"the client does not list {', '.join(missing)} in JoinRequest.codecs")
        for number, asked in enumerate(case.rounds):
            last = number == len(case.rounds) - 1
            await self._play_round(number, asked, request, ends=last and case.ends == "by-itself")
        if case.ends != "by-itself":
            self._expecting_end = True
            coordinator.finish(stopped=case.ends == "stopped")
        else:
            await findings.until(lambda: not self._faults_left(), "what ends the client")
        await self._end()

    def _faults_left(self) -> list[Fault]:
        given = self._coordinator.given
        return [*self._coordinator.faults, *(given.faults if given is not None else ()), *self._box.faults]

    async def _play_round(self, number: int, asked: Round, request: pb.JoinRequest, *, ends: bool) -> None:
        findings, coordinator, box = self._findings, self._coordinator, self._box
        await findings.until(lambda: coordinator.stream is not None, f"a stream of tasks before round {number}")
        if asked.heartbeats:
            seen = coordinator.heartbeats
            await findings.until(lambda: coordinator.heartbeats >= seen + asked.heartbeats, "the client's heartbeats")
        for fault in asked.faults:
            if fault.at == "idle" and ends:
                self._expecting_end = True
                await self._happen(fault)
                return
            if fault.at == "idle":
                await self._idle(fault)
        header, data, arrays = broadcasts.task(self._run, request.client_id, number, asked)
        box.begin()
        box.faults = [fault for fault in _each(asked.faults) if fault.at in ("score", "describe")]
        others = [fault for fault in _each(asked.faults) if fault.at in ("join", "open", "update")]
        opened = coordinator.opened
        given = Given(header, data, asked.chunk_bytes, _RECEIPTS[asked.receipt], others, asked.corrupt)
        self._expecting_end = ends
        coordinator.give(given)
        if ends:
            return
        await findings.until(lambda: given.done, f"the answer to round {number}")
        if asked.corrupt and coordinator.opened == opened:
            raise Broken(f"the client used the arrays of round {number}, which differ from their checksum")
        first = given.sent[0]
        if any(one.content() != first.content() for one in given.sent[1:]):
            raise Broken(f"the update of round {number} was sent again with other content")
        lost = sum(fault.times for fault in asked.faults if fault.at == "update")
        if len(given.sent) > 1 + lost:
            raise Broken(f"the update of round {number} was sent {len(given.sent)} times")
        self._check_delays(given.sent, asked)
        known = not any(fault.at == "score" and fault.action in ("kill", "fail") for fault in asked.faults)
        task = Asked(self._run, header, arrays, box, self._labels, request.examples, request.client_id, self._dev_given)
        self._judge.check(task, first, box.pairs if known else None)

    async def _idle(self, fault: Fault) -> None:
        """Lets a fault happen while the client listens, and waits until it listens again."""
        before = self._coordinator.opened
        await self._happen(fault)
        coordinator = self._coordinator
        await self._findings.until(
            lambda: coordinator.opened > before and coordinator.stream is not None and not coordinator.stream.silent,
            "a new stream of tasks",
        )

    async def _end(self) -> None:
        client = self._client
        assert client is not None
        await self._findings.until(lambda: client.code is not None, "the client's end")
        self._findings.check()
        case, joined = self._case, self._coordinator.joined
        succeeds = case.ends != "by-itself" if case.succeeds is None else case.succeeds
        if succeeds != (client.code == 0):
            raise Broken(f"the client's exit code is {client.code}; expected {'0' if succeeds else 'another than 0'}")
        if case.joins is not None and joined != case.joins:
            raise Broken(f"the client joined {joined} times; expected {case.joins}")
        self._check_pauses()

    def _check_delays(self, sent: Sequence[Sent], asked: Round) -> None:
        """Raises Broken if an update was sent again sooner than RetryInfo had asked for."""
        for fault, one, other in zip(asked.faults, sent, sent[1:], strict=False):
            waited = other.at - one.at
            if fault.error in OVERLOADED and waited < SHARE_OF_DELAY * RETRY_SECONDS:
                told = f"RetryInfo asked for {RETRY_SECONDS:g} s"
                raise Broken(f"the update was sent again after {waited:.2f} s, and {told}")

    def _check_pauses(self) -> None:
        times = self._coordinator.join_times
        failed = sum(fault.times for fault in self._case.faults if fault.at == "join" and fault.action == "fail")
        if failed >= 3 and len(times) > failed and times[failed] - times[0] < LEAST_PAUSE_SECONDS * failed:
            seconds = times[failed] - times[0]
            raise Broken(f"{failed} failed calls of Join were repeated within {seconds:.3f} s, without pauses")

    # Faults

    async def _happen(self, fault: Fault) -> None:
        """Lets a fault happen. Raises its error, if it has one for the call."""
        coordinator = self._coordinator
        match fault.action:
            case "fail":
                raise fault.raised()
            case "break":
                coordinator.break_stream(fault.raised())
            case "evict":
                coordinator.forget()
                if fault.at == "idle":
                    coordinator.break_stream(fault.raised())
                else:
                    raise fault.raised()
            case "forget":
                self._box.forget()
            case "silence":
                if coordinator.stream is not None:
                    coordinator.stream.silent = True
                    coordinator.stream = None
            case "hold":
                seen = coordinator.heartbeats
                await self._findings.until(
                    lambda: coordinator.heartbeats >= seen + HEARTBEATS_AWAITED, "heartbeats while the client works"
                )
            case "restart":
                await self._restart_coordinator(fault)
            case "kill":
                await self._restart_client()

    async def _restart_coordinator(self, fault: Fault) -> None:
        self._coordinator.forget()
        self._coordinator.stream = None

        async def restart() -> None:
            await self._servers["coordinator"].stop(0)
            await self._serve("coordinator")

        if fault.at in ("idle", "score"):
            await restart()
        else:
            # The call that this happens in ends with the server.
            self._restarting = asyncio.create_task(restart())
            await asyncio.sleep(self._findings.seconds)

    async def _restart_client(self) -> None:
        assert self._client is not None
        client, expecting = self._client, self._expecting_end
        self._expecting_end = True
        self._coordinator.stream = None

        async def restart() -> None:
            await client.kill()
            await self._start_client()
            self._expecting_end = expecting

        # The call that this happens in ends with the client.
        self._restarting = asyncio.create_task(restart())
        await asyncio.sleep(self._findings.seconds)
