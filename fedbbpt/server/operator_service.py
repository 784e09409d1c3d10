"""The rpcs of a coordinator's operators; run.proto documents them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from fedbbpt.errors import NotPermitted, StoreError
from fedbbpt.host.files import sha256_of_file
from fedbbpt.identity.callers import Caller
from fedbbpt.identity.roles import WATCHERS, Role
from fedbbpt.server.live_run import LiveRun, set_within
from fedbbpt.server.runs import Runs
from fedbbpt.types import OWNER, NewRun, RunEvent, RunStatus
from fedbbpt.v1 import run_pb2 as pb
from fedbbpt.v1 import run_pb2_grpc
from fedbbpt.wire.interceptors import Context, current_caller
from fedbbpt.wire.messages import operator_messages
from fedbbpt.wire.messages.operator_messages import Progress


def check_admitted(run: LiveRun, caller: Caller) -> None:
    """Raises NotPermitted unless the caller's credentials are for this run.

    Tokens of a run's own admit to that run only, and its clients need them.
    """
    if caller.runs is None and run.tokens and not caller.roles & WATCHERS:
        raise _needs_own_token()
    if caller.runs is not None and run.name not in caller.runs:
        raise NotPermitted("the token admits to another run", where="run", fix="--token-file with this run's token")


def check_joins(run: LiveRun, caller: Caller) -> None:
    """Raises NotPermitted unless the caller may take part in the run."""
    check_admitted(run, caller)
    if run.tokens and caller.runs is None:
        raise _needs_own_token()


def _needs_own_token() -> NotPermitted:
    return NotPermitted("the run has tokens of its own", where="run", fix="--token-file with this run's token")


class RunService(run_pb2_grpc.RunServiceServicer):
    """The rpcs of the operators. `identity.roles` has the roles that may call each; clients see only themselves."""

    def __init__(self, runs: Runs, watch_seconds: float, heartbeat_seconds: float) -> None:
        self._runs = runs
        self._watch_seconds, self._heartbeat_seconds = watch_seconds, heartbeat_seconds

    def _looked_at(self, name: str) -> LiveRun:
        run = self._runs.named(name)
        check_admitted(run, current_caller())
        return run

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=_status(self._looked_at(request.run)))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        run = self._looked_at(request.run)
        coordinator, progress, sent, told = run.coordinator, Progress(), max(0, request.since_round), 0
        while True:
            status_changed, ended = run.status_changed, coordinator.state.ended
            news = coordinator.reports(sent)
            sent += len(news)
            events = coordinator.events.since(told)
            told = events[-1].number if events else told
            yield progress.response(_visible(coordinator.status()), news, run.name, _visible_events(events))
            if ended:
                return
            await set_within(run.ended, self._watch_seconds)
            # A message without news, so that no proxy takes a quiet run for a dead connection.
            await set_within(status_changed, self._heartbeat_seconds)

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        run = self._looked_at(request.run)
        result, status = run.coordinator.result(), run.coordinator.status()
        return operator_messages.get_result_response(result, status, run.name, run.card())

    async def StopRun(self, request: pb.StopRunRequest, context: Context) -> pb.StopRunResponse:
        run = self._runs.named(request.run)
        with run.notifying() as coordinator:
            coordinator.stop(run.now())
        return pb.StopRunResponse(run=_status(run))

    async def SubmitRun(self, request: pb.SubmitRunRequest, context: Context) -> pb.SubmitRunResponse:
        run = self._runs.submit(
            NewRun(
                request.name,
                request.job,
                request.ptm_address,
                request.ptm_revision,
                tuple(request.tokens),
                request.start,
            )
        )
        run.start()
        return pb.SubmitRunResponse(run=_status(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        return pb.ListRunsResponse(runs=[_status(run, members=False) for run in self._runs])

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        self._runs.delete(request.run)
        return pb.DeleteRunResponse()

    async def ContinueRun(self, request: pb.ContinueRunRequest, context: Context) -> pb.ContinueRunResponse:
        run = self._runs.continue_run(request.run, request.rounds)
        run.start()
        return pb.ContinueRunResponse(run=_status(run))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        run = self._runs.named(request.run)
        return pb.ListMembersResponse(members=map(operator_messages.member, run.coordinator.members()))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        run = self._runs.named(request.run)
        with run.notifying() as coordinator:
            coordinator.remove(request.client_id, run.now())
        return pb.RemoveMemberResponse()

    async def BackupRun(self, request: pb.BackupRunRequest, context: Context) -> pb.BackupRunResponse:
        run = self._runs.named(request.run)
        if run.backups is None:
            raise StoreError("this run has no folder for backups", fix="a coordinator with a store")
        path = run.backups.write(request.file, run.coordinator.backup)
        return pb.BackupRunResponse(
            file=f"{path.parent.name}/{path.name}",
            size_bytes=path.stat().st_size,
            sha256=bytes.fromhex(sha256_of_file(path)),
            round=run.coordinator.status().round,
        )


def _status(run: LiveRun, *, members: bool = True) -> pb.Run:
    return operator_messages.run(_visible(run.coordinator.status()), run.name, members=members, late=members)


def _visible(status: RunStatus) -> RunStatus:
    """Returns what the caller may see of a status: of members, clients and owners see themselves."""
    own = _only(current_caller())
    if own is None:
        return status
    members, late = (tuple(one for one in group if one.client_id == own) for group in (status.members, status.late))
    return replace(status, members=members, late=late)


def _visible_events(events: Sequence[RunEvent]) -> Sequence[RunEvent]:
    """Returns the events that the caller may see: clients and owners see those about themselves."""
    own = _only(current_caller())
    return events if own is None else [event for event in events if event.client_id and event.client_id == own]


def _only(caller: Caller) -> str | None:
    """Returns the only client that the caller may see; None: all."""
    if caller.roles & WATCHERS:
        return None
    return OWNER if Role.OWNER in caller.roles else caller.name
