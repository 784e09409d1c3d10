"""A whole federation on this machine as real processes: a PTM service, a coordinator, and its clients.

The launcher plays no part in the run: it hands each client its file, watches as any operator may, and measures the
result on data that no client had.
"""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from queue import Empty, Queue
from typing import TypeAlias

from fedbbpt.data.examples import write
from fedbbpt.errors import CoordinatorUnavailable, FedbbptError
from fedbbpt.federation import assemble
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.federation.run_folder import AUXILIARY, STORE
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun
from fedbbpt.types import OWNER, Report, Result, RunStatus
from fedbbpt.wire.channel import connect

PTM_START_SECONDS = 600.0
"""A large model takes minutes to load."""
START_SECONDS = 60.0

LOOK_SECONDS = 0.2

Watch: TypeAlias = Callable[[RunStatus, tuple[Report, ...]], None]
Event: TypeAlias = tuple[RunStatus, tuple[Report, ...]] | FedbbptError


def start_ptm(group: ProcessGroup, job: Job, out: Path, note: Callable[[str], None]) -> str:
    """The address of the job's PTM service: its own, or one that is started here."""
    if job.ptm.address:
        return job.ptm.address
    note(f"starting the PTM service with {job.ptm.model}")
    file = out / "ptm.address"
    file.unlink(missing_ok=True)
    speed = ["--threads", str(job.ptm.threads), "--precision", job.ptm.precision]
    arguments = ["--model", job.ptm.model, *speed, "--address-file", str(file)]
    group.start("ptm", ["ptm", "serve", *arguments])
    return group.address("ptm", file, PTM_START_SECONDS)


def run_federation(
    group: ProcessGroup,
    splits: Splits,
    out: Path,
    ptm_address: str,
    revision: str,
    note: Callable[[str], None],
    watch: Watch,
) -> tuple[Result, tuple[Report, ...]]:
    """Starts coordinator and clients, and follows the run to its end."""
    job = splits.job
    (out / "data").mkdir(exist_ok=True)
    assemble.check_owner_has_data(job, splits.server)
    (out / "job.toml").write_text(job_text(job), encoding="utf-8")
    told = ["--ptm", ptm_address, "--ptm-revision", revision]
    shard = (
        ["--data", str(write(out / "data" / "server", splits.server, job.task.labels))] if len(splits.server) else []
    )
    if job.entry().white_box:
        told += ["--auxiliary", str(_make_auxiliary(group, out, shard, note))]
    note("starting the coordinator")
    file = out / "coordinator.address"
    file.unlink(missing_ok=True)
    places = ["--store", str(out / STORE), "--address-file", str(file)]
    group.start("coordinator", ["coordinator", "serve", str(out / "job.toml"), *places, *told])
    address = group.address("coordinator", file, START_SECONDS)
    note(f"starting {len(splits.train)} clients")
    names = [assemble.client_name(index) for index in range(len(splits.train))]
    for name, train, dev in zip(names, splits.train, splits.dev, strict=True):
        train_file = write(out / "data" / f"{name}.train", train, job.task.labels)
        dev_file = write(out / "data" / f"{name}.dev", dev, job.task.labels)
        mine = ["--name", name, "--data", str(train_file), "--dev", str(dev_file), "--one-class"]
        group.start(name, ["client", "join", "--coordinator", address, *mine, "--state", str(out / "clients" / name)])
    if job.entry().owner_takes_part(job.method):
        mine = ["--model", job.ptm.model, *shard, "--state", str(out / "clients" / OWNER)]
        group.start(OWNER, ["owner", "join", "--coordinator", address, *mine])
    quorum = assemble.cohort(job).quorum
    with connect(address) as channel:
        operator = RemoteRun(channel)
        events: Queue[Event] = Queue()
        threading.Thread(target=_watch, args=(operator, events), daemon=True, name="watch").start()
        reports: list[Report] = []
        failed: list[str] = []
        while True:
            # A run goes on without some of its clients, but not without its PTM, the model's owner where it has a turn,
            # nor with fewer than its quorum.
            group.require("ptm")
            if group.ended().get(OWNER):
                group.require(OWNER)
            before, failed = failed, sorted(name for name, code in group.ended().items() if name in names and code)
            if failed != before:
                note(f"ended with an error: {', '.join(failed)}; see logs/")
            if len(names) - len(failed) < quorum:
                group.require(failed[0])
            with contextlib.suppress(Empty):
                match events.get(timeout=LOOK_SECONDS):
                    case CoordinatorUnavailable() as error:
                        group.require("coordinator")
                        raise error
                    case FedbbptError() as error:
                        raise error
                    case status, news:
                        reports += news
                        watch(status, news)
                        if status.state.ended:
                            return operator.result(), tuple(reports)


def _make_auxiliary(group: ProcessGroup, out: Path, shard: list[str], note: Callable[[str], None]) -> Path:
    """The auxiliary model's file, made by the model's owner in a process of its own, unless it is there already."""
    path = out / AUXILIARY
    if not path.exists():
        note("making the auxiliary model")
        group.start("auxiliary", ["owner", "auxiliary", str(out / "job.toml"), *shard, "--out", str(path)])
        if group.wait("auxiliary"):
            group.require("auxiliary")
    return path


def _watch(operator: RemoteRun, events: Queue[Event]) -> None:
    """In a thread of its own, so that the launcher can look after its processes meanwhile."""
    try:
        for event in operator.watch():
            events.put(event)
    except FedbbptError as error:
        events.put(error)
