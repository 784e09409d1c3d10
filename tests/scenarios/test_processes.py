"""A group of processes: their addresses and logs, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedbbpt.cli.terminal.signals import TERMINATED
from fedbbpt.errors import ChildFailed
from fedbbpt.federation.processes import LIFELINE, ProcessGroup, end_with_parent
from tests.processes import END_SECONDS, mentioning, wait_for_end


def test_a_service_reports_its_address_and_ends_with_its_group(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        file = tmp_path / "ptm.address"
        group.start("ptm", ["ptm", "serve", "--model", "fake", "--address-file", str(file)])
        host, _, port = group.address("ptm", file, END_SECONDS).rpartition(":")
        assert host == "127.0.0.1" and int(port) > 0
        assert group.ended() == {}
        group.require("ptm")
        (pid,) = mentioning(str(file))
        with pytest.raises(ChildFailed, match="did not listen within 0 s"):
            group.address("ptm", tmp_path / "never", limit_seconds=0.0)
    wait_for_end([pid])
    assert mentioning(str(file)) == []


def test_a_child_that_failed_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("coordinator", ["coordinator", "serve", str(tmp_path / "missing.toml")])
        assert group.wait("coordinator") == 3
        assert group.ended() == {"coordinator": 3}
        with pytest.raises(ChildFailed, match=r"(?s)coordinator ended with code 3:.*InvalidJob.*missing\.toml"):
            group.require("coordinator")
        with pytest.raises(ChildFailed):
            group.address("coordinator", tmp_path / "never", END_SECONDS)


def test_a_module_in_the_working_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit(99)")
    monkeypatch.chdir(tmp_path)
    with ProcessGroup(tmp_path / "logs") as group:
        group.start("coordinator", ["coordinator", "serve", "missing.toml"])
        assert group.wait("coordinator") == 3


def test_a_child_ends_if_its_parent_died_before_it_started(tmp_path: Path) -> None:
    """The parent's end of the pipe is closed before the child has imported the package."""
    with subprocess.Popen(
        [sys.executable, "-m", "fedbbpt", "ptm", "serve", "--model", "fake"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={**os.environ, LIFELINE: "1"},
    ) as child:
        assert child.wait(END_SECONDS) in (TERMINATED, -signal.SIGTERM)


def test_a_command_that_no_group_started_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(LIFELINE, raising=False)
    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before


CTRL_C = """
import signal
from fedbbpt.federation.processes import signals_deferred

signal.signal(signal.SIGINT, signal.default_int_handler)
done = []
try:
    with signals_deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("the block")
except KeyboardInterrupt:
    done.append("the interrupt")
assert done == ["the block", "the interrupt"], done
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
"""


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    """The test needs a process of its own: in one with threads, the signal may arrive at any later time."""
    subprocess.run([sys.executable, "-c", CTRL_C], check=True, timeout=END_SECONDS)
