"""The rpcs of a coordinator's operators; run.proto documents them."""

from collections.abc import AsyncIterator, Collection

from fedbbpt.errors import StoreError, Unauthenticated
from fedbbpt.host.files import sha256_of_file
from fedbbpt.server.live_run import LiveRun, set_within
from fedbbpt.server.runs import Runs
from fedbbpt.types import NewRun
from fedbbpt.v1 import run_pb2 as pb
from fedbbpt.v1 import run_pb2_grpc
from fedbbpt.wire.interceptors import CallInterceptor, Context
from fedbbpt.wire.messages import operator_messages
from fedbbpt.wire.messages.operator_messages import Progress
from fedbbpt.wire.tokens import shown_token


def check_admitted(tokens: Collection[str], context: Context) -> None:
    """Raises Unauthenticated if there are tokens, given by their SHA-256, and the caller shows none of them."""
    if tokens and shown_token(context.invocation_metadata()) not in tokens:
        what, fix = (
            "the token admits to another run, or to runs as their client only",
            "--token-file with this run's token",
        )
        raise Unauthenticated(what, where="authorization", fix=fix)


class RunService(run_pb2_grpc.RunServiceServicer):
    """The rpcs of the operators.

    Clients may look at their run and fetch its result; everything else needs a token of an operator. Those are the
    tokens of the process, unless it has others for its operators.
    """

    def __init__(self, runs: Runs, guard: CallInterceptor, watch_seconds: float, heartbeat_seconds: float) -> None:
        self._runs, self._guard = runs, guard
        self._watch_seconds, self._heartbeat_seconds = watch_seconds, heartbeat_seconds

    def _looked_at(self, name: str, context: Context) -> LiveRun:
        run = self._runs.named(name)
        check_admitted(self._guard.operators and self._guard.operators | (run.tokens or self._guard.tokens), context)
        return run

    def _operated(self, name: str, context: Context) -> LiveRun:
        check_admitted(self._guard.operators, context)
        return self._runs.named(name)

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=_status(self._looked_at(request.run, context)))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        run = self._looked_at(request.run, context)
        coordinator, progress, sent = run.coordinator, Progress(), max(0, request.since_round)
        while True:
            status_changed, ended = run.status_changed, coordinator.state.ended
            news = coordinator.reports(sent)
            sent += len(news)
            yield progress.response(coordinator.status(), news, run.name)
            if ended:
                return
            await set_within(run.ended, self._watch_seconds)
            # A message without news, so that no proxy takes a quiet run for a dead connection.
            await set_within(status_changed, self._heartbeat_seconds)

    async def GetResult(self, request: pb.GetResultRequest, context: Context) -> pb.GetResultResponse:
        run = self._looked_at(request.run, context)
        result, status = run.coordinator.result(), run.coordinator.status()
        return operator_messages.get_result_response(result, status, run.name, run.card())

    async def StopRun(self, request: pb.StopRunRequest, context: Context) -> pb.StopRunResponse:
        run = self._operated(request.run, context)
        with run.notifying() as coordinator:
            coordinator.stop(run.now())
        return pb.StopRunResponse(run=_status(run))

    async def SubmitRun(self, request: pb.SubmitRunRequest, context: Context) -> pb.SubmitRunResponse:
        check_admitted(self._guard.operators, context)
        run = self._runs.submit(
            NewRun(
                request.name,
                request.job,
                request.ptm_address,
                request.ptm_revision,
                tuple(request.token_sha256),
                request.start,
            )
        )
        run.start()
        return pb.SubmitRunResponse(run=_status(run))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        check_admitted(self._guard.operators, context)
        return pb.ListRunsResponse(runs=[_status(run, members=False) for run in self._runs])

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Context) -> pb.DeleteRunResponse:
        check_admitted(self._guard.operators, context)
        self._runs.delete(request.run)
        return pb.DeleteRunResponse()

    async def ContinueRun(self, request: pb.ContinueRunRequest, context: Context) -> pb.ContinueRunResponse:
        check_admitted(self._guard.operators, context)
        run = self._runs.continue_run(request.run, request.rounds)
        run.start()
        return pb.ContinueRunResponse(run=_status(run))

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        run = self._operated(request.run, context)
        return pb.ListMembersResponse(members=map(operator_messages.member, run.coordinator.members()))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        run = self._operated(request.run, context)
        with run.notifying() as coordinator:
            coordinator.remove(request.client_id, run.now())
        return pb.RemoveMemberResponse()

    async def BackupRun(self, request: pb.BackupRunRequest, context: Context) -> pb.BackupRunResponse:
        run = self._operated(request.run, context)
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
    return operator_messages.run(run.coordinator.status(), run.name, members=members)
