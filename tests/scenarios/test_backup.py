"""A backup of a running coordinator: the run goes on, and another coordinator continues from the file."""

import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from fedbbpt.errors import InvalidRequest, Overloaded
from fedbbpt.federation.splits import Splits
from fedbbpt.server.backup_folder import MOST_BACKUPS
from fedbbpt.server.remote import RemoteRun
from tests.federation import AdvancingLoop, InProcess, OverGrpc, play
from tests.tiny_run import ROUNDS, undisturbed


@pytest.fixture
def federation(splits: Splits, tmp_path: Path, server_loop: AdvancingLoop) -> Iterator[OverGrpc]:
    made = OverGrpc(splits, tmp_path / "run.db", server_loop)
    yield made
    made.close()


def test_a_run_continues_from_a_backup_of_its_middle(federation: OverGrpc, splits: Splits, tmp_path: Path) -> None:
    clients = federation.clients()
    play(clients, 1)
    play(clients[:1], 1)
    made = RemoteRun(federation.channel()).backup("monday.db")
    file = tmp_path / made.file
    assert (made.round, made.size_bytes) == (1, file.stat().st_size)
    assert made.sha256 == sha256(file.read_bytes()).hexdigest()
    play(clients[1:], 1)
    play(clients, ROUNDS - 1)
    assert federation.course() == undisturbed(splits)

    (tmp_path / "restored").mkdir()
    restored = InProcess(splits, Path(shutil.copy(file, tmp_path / "restored" / "run.db")))
    returned = restored.clients()
    play(returned[1:], 1)  # the backup holds the first client's update of this round
    play(returned, ROUNDS - 1)
    assert restored.course() == undisturbed(splits)
    restored.close()


@pytest.mark.parametrize("name", ["", "../run.db", "folder/run.db", ".hidden", "a" * 101, "run.db\n"])
def test_a_name_outside_the_folder_is_refused(federation: OverGrpc, name: str) -> None:
    with pytest.raises(InvalidRequest, match="a file name of up to 100"):
        RemoteRun(federation.channel()).backup(name)


def test_a_backup_is_never_replaced(federation: OverGrpc, tmp_path: Path) -> None:
    backup = RemoteRun(federation.channel()).backup
    before = (tmp_path / backup("one.db").file).read_bytes()
    federation.clients()
    with pytest.raises(InvalidRequest, match=r"there is a backup 'one\.db'; another name"):
        backup("one.db")
    assert (tmp_path / "backups" / "one.db").read_bytes() == before
    assert [path.name for path in (tmp_path / "backups").iterdir()] == ["one.db"]


def test_backups_do_not_fill_the_disk(federation: OverGrpc, tmp_path: Path) -> None:
    (tmp_path / "backups").mkdir()
    for number in range(MOST_BACKUPS):
        (tmp_path / "backups" / f"{number}.db").touch()
    with pytest.raises(Overloaded, match="move some of them"):
        RemoteRun(federation.channel()).backup("one-more.db")
