"""The launcher of a run's processes: its folder, and its handling of processes that end early."""

from pathlib import Path

import pytest

from fedbbpt.errors import ChildFailed, FedbbptError
from fedbbpt.federation.launch import run_federation, start_ptm
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.federation.run_folder import prepare_folder
from fedbbpt.federation.splits import Splits
from fedbbpt.job.config import Job


def test_a_ptm_that_runs_already_is_not_started(tmp_path: Path) -> None:
    job = Job.model_validate({"ptm": {"address": "ptm.example.org:7001"}})
    with ProcessGroup(tmp_path) as group:
        assert start_ptm(group, job, tmp_path, pytest.fail) == "ptm.example.org:7001"


@pytest.mark.slow
def test_a_ptm_that_cannot_be_loaded_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    job = Job.model_validate({"ptm": {"model": str(tmp_path / "no-model")}})
    with (
        ProcessGroup(tmp_path / "logs") as group,
        pytest.raises(ChildFailed, match=r"(?s)ptm ended with code 3.*no-model"),
    ):
        start_ptm(group, job, tmp_path, lambda note: None)


def test_a_store_of_another_job_ends_the_run_with_the_reason(splits: Splits, tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    (tmp_path / "run.db").write_bytes(b"this is not a database at all" * 100)
    with ProcessGroup(tmp_path / "logs") as group, pytest.raises(FedbbptError, match="StoreMismatch"):
        run_federation(group, splits, tmp_path, "127.0.0.1:1", "", lambda note: None, lambda news: None)


def test_a_run_whose_clients_cannot_reach_a_quorum_ends_with_the_reason(splits: Splits, tmp_path: Path) -> None:
    """The coordinator pins a revision that the PTM does not have, so every client stops."""
    prepare_folder(tmp_path)
    notes: list[str] = []
    with ProcessGroup(tmp_path / "logs") as group:
        ptm = start_ptm(group, splits.job, tmp_path, notes.append)
        with pytest.raises(ChildFailed, match="RevisionChanged"):
            run_federation(group, splits, tmp_path, ptm, "another", notes.append, lambda news: None)
    assert any(note.startswith("ended with an error: client-000") for note in notes)
