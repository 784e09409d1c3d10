"""Opens the runs of a coordinator process: one for a job, or many in a folder, each with a folder of its own.

A run's folder holds job.toml as it was submitted, run.json with what a request says besides, the database, and the
records of `run_records`. Everything that begins or changes a run is on disk before it is acknowledged.
"""

import fcntl
import json
import logging
import re
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from fedbbpt.errors import (
    FedbbptError,
    InvalidInput,
    InvalidJob,
    RunNameTaken,
    StoreError,
    StoreLocked,
    StoreMismatch,
    TooManyRuns,
)
from fedbbpt.federation import assemble
from fedbbpt.federation.run_folder import BACKUPS, JOB, STORE, SUMMARY
from fedbbpt.federation.run_records import RunRecords, card_of
from fedbbpt.federation.starting_prompt import starting_prompt
from fedbbpt.federation.task_completion import with_preset
from fedbbpt.host.files import atomic_write, sync_folder
from fedbbpt.identity.roles import PARTICIPANTS
from fedbbpt.identity.tokens_file import parse_tokens
from fedbbpt.job.config import Job, parse_job, read_job
from fedbbpt.job.settings import run_settings, task_spec
from fedbbpt.limits import MAX_JOB_BYTES, MAX_RUN_NAME_CHARACTERS, MAX_RUN_TOKENS, MAX_RUNS, MAX_START_BYTES
from fedbbpt.server.audit import Audit, no_audit, of_run
from fedbbpt.server.backup_folder import BackupFolder
from fedbbpt.server.live_run import LiveRun
from fedbbpt.server.stores.opening import await_store, folder_of, open_store
from fedbbpt.server.stores.rows import RunRecord
from fedbbpt.server.stores.sql import SqlStore
from fedbbpt.server.timed_store import TimedStore
from fedbbpt.types import NewRun
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.traffic import TrafficMeter

log = logging.getLogger(__name__)

REQUEST = "run.json"
"""What a request for a run says besides its job."""
START = "start.safetensors"
"""The prompt that a run begins at, if a request gave one."""
_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_RUN_NAME_CHARACTERS - 1}}}")


def complete_job(job: Job, where: str) -> Job:
    """Returns the job with its preset's task. Raises InvalidJob if only data could complete the task."""
    try:
        job = with_preset(job)
        task_spec(job)
    except InvalidJob as error:
        raise InvalidJob(error.what, where=where, fix=error.fix) from None
    return job


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run, its store and its records, which must be closed."""

    live: LiveRun
    store: SqlStore
    records: RunRecords

    def close(self) -> None:
        """Closes the store, and lets the tools of the job's `[log]` take the rest."""
        self.store.close()
        self.records.close()


def open_run(
    job: Job,
    location: str | Path,
    request: NewRun,
    *,
    standby: bool = False,
    auxiliary: Path | None = None,
    rounds: int | None = None,
    start: Path | None = None,
    audit: Audit = no_audit,
) -> OpenRun:
    """Begins the run of a job, or continues the one in the store.

    Its records go to the folder of the store's file, or, if the store is a database, to the current folder.

    Args:
        job: The job, with its task complete.
        location: The file of the store, or the URL of a PostgreSQL database.
        request: The run's name, the PTM service and the tokens of its clients; the job in it is not read.
        standby: Whether to wait for the store while another coordinator has it.
        auxiliary: The auxiliary model for clients of a white-box method.
        rounds: The number of rounds; None: the job's.
        start: The file of the prompt that a new run begins at; None: the method's own.
        audit: Records what happens to clients and to the run.

    Raises:
        StoreError: The store cannot be opened, or holds another run.
        InvalidInput: The auxiliary model cannot be read, the run cannot begin at `start`, or a tool of the job's
            `[log]` is not installed.
        InvalidJob: The clip norm does not suit noise in shares.
    """
    # Random, so that a client never mistakes what it kept from an earlier run of the same job for this one's.
    run_id = f"{job.run.name}-{secrets.token_hex(4)}"
    assemble.check_noise(job)
    record = RunRecord(run_id, job.run.seed, job.digest(request.ptm_revision), datetime.now(UTC).isoformat())
    opened = await_store(str(location), record) if standby else open_store(str(location), record)
    store, traffic, folder = opened, TrafficMeter(), folder_of(str(location))
    try:
        model = assemble.announced_auxiliary(auxiliary) if auxiliary else None
        address = request.ptm_address or job.ptm.address
        settings = run_settings(job, store.run.run_id, address, request.ptm_revision, model)
        if rounds is not None:
            settings = replace(settings, rounds=rounds)
        timed = TimedStore(store)
        first = None if start is None else starting_prompt(start, job)
        coordinator = assemble.coordinator(job, settings, timed, traffic.read, first, of_run(audit, settings.run_id))
        records = RunRecords(folder, job)
    except BaseException:
        store.close()
        raise
    live = LiveRun(
        coordinator,
        traffic,
        name=request.name,
        auxiliary=auxiliary,
        backups=BackupFolder(folder / BACKUPS),
        tokens=parse_tokens(request.tokens, "tokens"),
        card=lambda: card_of(job, coordinator).model_dump_json(),
        follow=partial(records.follow, coordinator),
        writes=timed.writes,
    )
    return OpenRun(live, store, records)


class RunFolders:
    """The folder of a coordinator that serves many runs: a `server.runs.Keeper`."""

    def __init__(self, folder: Path, audit: Audit = no_audit) -> None:
        """Opens the runs in the folder, which is created if it is missing.

        Raises StoreLocked if another coordinator has the folder open, and OSError.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise StoreLocked("another coordinator has it open", where=str(folder), fix="another --state") from None
        self._folder, self._audit, self._open = folder, audit, dict[str, OpenRun]()
        self.broken: dict[str, FedbbptError] = {}
        """Runs that cannot be opened, with the reason. The others go on."""
        for path in sorted(each for each in folder.iterdir() if (each / REQUEST).exists()):
            try:
                self._reopen(path.name)
            except FedbbptError as error:
                log.error("run %s cannot be opened, the others go on: %s", path.name, error)
                self.broken[path.name] = error

    @property
    def runs(self) -> list[LiveRun]:
        """The runs that are open."""
        return [each.live for each in self._open.values()]

    def submit(self, new: NewRun) -> LiveRun:
        """Returns the new run, or the one that the same request began before. Raises what SubmitRun documents."""
        job, request = _checked(new)
        path = self._folder / request.name
        if request.name in self._open or path.exists():
            if request.name in self._open and self._same(path, request):
                return self._open[request.name].live
            raise RunNameTaken(
                "another run has this name", where=request.name, fix="another --name, or delete that run"
            )
        if len(self._open) + len(self.broken) >= MAX_RUNS:
            raise TooManyRuns(f"{MAX_RUNS} runs", where="run", fix="`fedbbpt runs delete` for one that has ended")
        # A folder counts as a run once it has its request, which comes last.
        try:
            path.mkdir()
            atomic_write(path / JOB, request.job)
            if request.start:
                atomic_write(path / START, request.start)
            self._write_request(request)
            sync_folder(self._folder)
            self._open[request.name] = open_run(job, path / STORE, request, start=_start(path), audit=self._audit)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise StoreError(error.strerror or str(error), where=str(path), fix="a disk with space") from None
        except FedbbptError:
            shutil.rmtree(path, ignore_errors=True)
            raise
        return self._open[request.name].live

    def continue_run(self, run: LiveRun, rounds: int) -> LiveRun:
        """Returns an ended run, opened anew with so many rounds more.

        Raises InvalidInput where its privacy budget does not pay for them, and StoreError.
        """
        opened = self._open[run.name]
        snapshot = opened.store.load()
        assert snapshot is not None, "a run that has ended has begun"
        private = assemble.private_rounds(read_job(self._folder / run.name / JOB))
        if private is not None and snapshot.privacy is not None:
            left = private.most_rounds(snapshot.privacy) - snapshot.privacy.rounds
            if rounds > left:
                fix = f"at most {left}" if left else "a new run, whose epsilon adds to that of this one"
                raise InvalidInput(f"{rounds} more would exceed the privacy budget", where="rounds", fix=fix)
        # A run that was stopped before its first round continues with it.
        total = snapshot.round + rounds
        self._write_request(self._read_request(run.name), total)
        (self._folder / run.name / SUMMARY).unlink(missing_ok=True)
        opened.store.commit(replace(snapshot, stopped_after=None))
        opened.close()
        return self._reopen(run.name)

    def delete(self, run: LiveRun) -> None:
        """Deletes the files of an ended run. Raises StoreError."""
        self._open.pop(run.name).close()
        path = self._folder / run.name
        try:
            (path / REQUEST).unlink()  # first, so that a crash leaves no half of a run
            shutil.rmtree(path)
        except OSError as error:
            raise StoreError(error.strerror or str(error), where=str(path)) from None

    def close(self) -> None:
        """Closes all stores."""
        for opened in self._open.values():
            opened.close()
        self._lock.close()

    def _reopen(self, name: str) -> LiveRun:
        path, request = self._folder / name, self._read_request(name)
        job = complete_job(read_job(path / JOB), str(path / JOB))
        self._open[name] = open_run(
            job, path / STORE, request, rounds=self._read(name).get("rounds"), start=_start(path), audit=self._audit
        )
        return self._open[name].live

    def _write_request(self, request: NewRun, rounds: int | None = None) -> None:
        content = {key: value for key, value in asdict(request).items() if key not in ("job", "start")} | {
            "rounds": rounds
        }
        atomic_write(self._folder / request.name / REQUEST, json.dumps(content, indent=2) + "\n")

    def _read(self, name: str) -> Mapping[str, Any]:
        path = self._folder / name / REQUEST
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return content
        except (OSError, ValueError) as error:
            raise StoreMismatch(str(error), where=str(path), fix="the file as the coordinator wrote it") from None

    def _read_request(self, name: str) -> NewRun:
        content = self._read(name)
        try:
            tokens = tuple(content["tokens"])
            return NewRun(name, "", content["ptm_address"], content["ptm_revision"], tokens)
        except (KeyError, TypeError):
            where, fix = str(self._folder / name / REQUEST), "the file as the coordinator wrote it"
            raise StoreMismatch("not the request of a run", where=where, fix=fix) from None

    def _same(self, path: Path, request: NewRun) -> bool:
        return (
            self._read_request(request.name) == replace(request, job="", start=b"")
            and (path.joinpath(START).read_bytes() if _start(path) else b"") == request.start
            and path.joinpath(JOB).read_text(encoding="utf-8") == request.job
        )


def _start(folder: Path) -> Path | None:
    """Returns the file of the prompt that a run begins at, if it has one."""
    return path if (path := folder / START).exists() else None


def _checked(new: NewRun) -> tuple[Job, NewRun]:
    """Returns the job of a request, and the request with its name. Raises InvalidJob, InvalidInput."""
    if len(new.job.encode()) > MAX_JOB_BYTES:
        raise InvalidInput("the job is too large", where="job", fix=f"at most {MAX_JOB_BYTES} bytes")
    if len(new.start) > MAX_START_BYTES:
        raise InvalidInput("the prompt is too large", where="start", fix=f"at most {MAX_START_BYTES} bytes")
    job = complete_job(parse_job(new.job, "the job"), "the job")
    name = new.name or job.run.name
    if not _NAME.fullmatch(name):
        fix = (
            f"at most {MAX_RUN_NAME_CHARACTERS} letters, digits, dots, underscores and hyphens, a letter or digit first"
        )
        raise InvalidInput(f"{name!r} is not a name of a run", where="name", fix=fix)
    if job.definition().white_box:
        what, fix = f"{job.method.name} needs an auxiliary model", "a coordinator of its own, with --auxiliary"
        raise InvalidJob(what, where="method.name", fix=fix)
    if job.log.anywhere:
        # Whoever may submit a run may not thereby write files or open connections at the coordinator.
        what, fix = (
            "a submitted run is shown in no tool",
            "an empty [log]; the coordinator's operator has --metrics-port",
        )
        raise InvalidJob(what, where="log", fix=fix)
    if new.ptm_address:
        parse_address(new.ptm_address, "ptm_address")
    if len(new.tokens) > MAX_RUN_TOKENS:
        raise InvalidInput(f"{len(new.tokens)} tokens", where="tokens", fix=f"at most {MAX_RUN_TOKENS}")
    if others := {token.role for token in parse_tokens(new.tokens, "tokens")} - PARTICIPANTS:
        what = f"a token of the role {min(others)}"
        raise InvalidInput(what, where="tokens", fix="a run's own tokens are those of clients and of the model's owner")
    return job, replace(new, name=name)
