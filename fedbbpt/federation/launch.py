"""A whole federation on this machine as real processes: a PTM service, a coordinator, and its clients.

The launcher takes no part in the run. It gives each client its files, follows the run as any operator may, and ends it
when a process fails that the run cannot do without.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, Queue
from typing import TypeAlias

from fedbbpt.data.examples import write
from fedbbpt.errors import CoordinatorUnavailable, FedbbptError
from fedbbpt.federation import assemble
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.federation.run_folder import AUXILIARY, JOB, STORE
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun, RunNews
from fedbbpt.types import OWNER, Report, Result
from fedbbpt.wire.channel import connect

PTM_START_SECONDS = 600.0
"""Time that the PTM service may take to load its model. A large one takes minutes."""
START_SECONDS = 60.0
"""Time that any other process may take to start."""
POLL_SECONDS = 0.2
"""Time between two looks at the processes."""

Note: TypeAlias = Callable[[str], None]
"""Receives a line about a step of the launcher."""
Watch: TypeAlias = Callable[[RunNews], None]
"""Receives the status of the run, the rounds that closed since the last call, and what else happened."""
Event: TypeAlias = RunNews | FedbbptError


def start_ptm(group: ProcessGroup, job: Job, out: Path, note: Note) -> str:
    """Starts the job's PTM service, unless the job names one that is running, and returns its address.

    Raises:
        ChildFailed: The service ended or did not listen in time, for example because its model cannot be loaded.
    """
    if job.ptm.address:
        return job.ptm.address
    note(f"starting the PTM service with {job.ptm.model}")
    file = out / "ptm.address"
    file.unlink(missing_ok=True)
    arguments = ["--model", job.ptm.model, "--threads", str(job.ptm.threads), "--address-file", str(file)]
    arguments += ["--label-tokens", "all"]  # whoever runs the job has the model, so there is nothing to protect
    for key, value in job.ptm.options().items():
        arguments += [f"--{key.replace('_', '-')}", str(value)]
    group.start("ptm", ["ptm", "serve", *arguments])
    return group.address("ptm", file, PTM_START_SECONDS)


def run_federation(
    group: ProcessGroup,
    splits: Splits,
    out: Path,
    ptm_address: str,
    revision: str,
    note: Note,
    watch: Watch,
    listening: Callable[[str], None] = lambda address: None,
) -> tuple[Result, tuple[Report, ...]]:
    """Starts the coordinator and the clients, and follows the run to its end.

    Args:
        group: The processes; a PTM service that `start_ptm` started is among them.
        splits: The job and each client's data.
        out: The run's folder.
        ptm_address: The addresses of the PTM service, which clients are told.
        revision: The only revision of the model that clients may use.
        note: Receives a line about each step of the launcher.
        watch: Receives the run's progress.
        listening: Receives the coordinator's address, before there are clients.

    Returns:
        The best prompt, and the report of each round.

    Raises:
        ChildFailed: A process failed that the run cannot do without.
        FedbbptError: The run failed.
    """
    job = splits.job
    assemble.check_owner_has_data(job, splits.server)
    (out / "data").mkdir(exist_ok=True)
    (out / JOB).write_text(job_text(job.without_log()), encoding="utf-8")
    shard: list[str] = []
    if len(splits.server):
        shard = ["--data", str(write(out / "data" / "server", splits.server, job.task.labels))]
    options = ["--ptm", ptm_address, "--ptm-revision", revision]
    if job.definition().white_box:
        options += ["--auxiliary", str(_make_auxiliary(group, out, shard, note))]
    address = _start_coordinator(group, out, options, note)
    listening(address)
    names = _start_clients(group, splits, out, address, ptm_address, note)
    if job.definition().owner_takes_part(job.method):
        own = ["--model", job.ptm.model, *shard, "--state", str(out / "clients" / OWNER)]
        group.start(OWNER, ["owner", "join", "--coordinator", address, *own])
    return _follow(group, address, names, assemble.cohort_rules(job).quorum, note, watch)


def _make_auxiliary(group: ProcessGroup, out: Path, shard: list[str], note: Note) -> Path:
    """The auxiliary model's file, which the owner makes in a process of its own, unless it is there already."""
    path = out / AUXILIARY
    if not path.exists():
        note("making the auxiliary model")
        group.start("auxiliary", ["owner", "auxiliary", str(out / JOB), *shard, "--out", str(path)])
        if group.wait("auxiliary"):
            group.require("auxiliary")
    return path


def _start_coordinator(group: ProcessGroup, out: Path, options: list[str], note: Note) -> str:
    """Starts the coordinator and returns its address."""
    note("starting the coordinator")
    file = out / "coordinator.address"
    file.unlink(missing_ok=True)
    files = ["--store", str(out / STORE), "--address-file", str(file)]
    group.start("coordinator", ["coordinator", "serve", str(out / JOB), *files, *options])
    return group.address("coordinator", file, START_SECONDS)


def _start_clients(group: ProcessGroup, splits: Splits, out: Path, coordinator: str, ptm: str, note: Note) -> list[str]:
    """Starts each client with its own data, and returns their names."""
    note(f"starting {len(splits.train)} clients")
    labels = splits.job.task.labels
    service = ["--ptm", ptm, *(["--send-labels-to-ptm"] if splits.job.ptm.send_labels else [])]
    names = [assemble.client_name(index) for index in range(len(splits.train))]
    for name, train, dev in zip(names, splits.train, splits.dev, strict=True):
        train_file = write(out / "data" / f"{name}.train", train, labels)
        dev_file = write(out / "data" / f"{name}.dev", dev, labels)
        own = ["--name", name, "--data", str(train_file), "--dev", str(dev_file), "--one-class"]
        state = ["--state", str(out / "clients" / name)]
        group.start(name, ["client", "join", "--coordinator", coordinator, *service, *own, *state])
    return names


def _follow(
    group: ProcessGroup, coordinator: str, names: Sequence[str], quorum: int, note: Note, watch: Watch
) -> tuple[Result, tuple[Report, ...]]:
    """Follows the run to its end while it looks after the processes."""
    with connect(coordinator) as channel:
        run = RemoteRun(channel)
        events: Queue[Event] = Queue()
        threading.Thread(target=_watch, args=(run, events), daemon=True, name="watch").start()
        reports: list[Report] = []
        failed: list[str] = []
        while True:
            failed = _check_processes(group, names, quorum, failed, note)
            with contextlib.suppress(Empty):
                match events.get(timeout=POLL_SECONDS):
                    case CoordinatorUnavailable() as error:
                        group.require("coordinator")
                        raise error
                    case FedbbptError() as error:
                        raise error
                    case RunNews() as news:
                        reports += news.reports
                        watch(news)
                        if news.status.state.ended:
                            return run.result(), tuple(reports)


def _check_processes(group: ProcessGroup, names: Sequence[str], quorum: int, known: list[str], note: Note) -> list[str]:
    """Returns the names of the clients that have failed; `known` are those that failed before.

    A run continues without some of its clients. It raises ChildFailed without its PTM, without the model's owner if
    the owner has a turn, or with fewer clients than the quorum.
    """
    group.require("ptm")
    if group.ended().get(OWNER):
        group.require(OWNER)
    failed = sorted(name for name, code in group.ended().items() if name in names and code)
    if failed != known:
        note(f"ended with an error: {', '.join(failed)}; see logs/")
    if len(names) - len(failed) < quorum:
        group.require(failed[0])
    return failed


def _watch(run: RemoteRun, events: Queue[Event]) -> None:
    """Passes on the run's events, in a thread of its own, so that the launcher can look after its processes."""
    try:
        for event in run.watch_events():
            events.put(event)
    except FedbbptError as error:
        events.put(error)
