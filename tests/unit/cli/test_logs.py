"""The log of a role: level, form, file."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedbbpt.cli.terminal.logs import LogFormat, Logging, LogLevel, reopen_log_files
from fedbbpt.errors import InvalidInput

log = logging.getLogger("fedbbpt.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers[:], root.level = before


def test_a_json_log_has_one_object_on_each_line_with_the_trace_of_an_error(tmp_path: Path) -> None:
    Logging(LogLevel.WARNING, LogFormat.JSON, tmp_path / "log").start()
    log.info("too little")
    try:
        raise ValueError("a\nb")
    except ValueError:
        log.exception("round %d", 3)
    (line,) = (tmp_path / "log").read_text().splitlines()
    found = json.loads(line)
    assert (found["level"], found["logger"], found["message"]) == ("error", "fedbbpt.test", "round 3")
    assert found["time"].endswith("+00:00") and found["trace"].endswith("ValueError: a\nb")


def test_a_text_log_has_one_line_for_each_record_whatever_it_quotes(tmp_path: Path) -> None:
    """Kills: a peer's text that forges a line, or that a terminal obeys when somebody looks at the log."""
    Logging(LogLevel.INFO, LogFormat.TEXT, tmp_path / "log").start()
    log.info("%s has joined", "north\n2026-01-01 ERROR forged \x1b[2J")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith(r"INFO fedbbpt.test: north\n2026-01-01 ERROR forged \x1b[2J has joined")


def test_a_file_that_grew_becomes_the_first_older_one(tmp_path: Path) -> None:
    Logging(log_file=tmp_path / "log", log_megabytes=1, log_files=1).start()
    for number in range(3):
        log.info("%d %s", number, "x" * 600_000)
    assert " 2 " in (tmp_path / "log").read_text() and " 1 " in (tmp_path / "log.1").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "log.1"]


def test_a_file_that_was_moved_is_opened_anew(tmp_path: Path) -> None:
    Logging(log_file=tmp_path / "log").start()
    log.info("first")
    (tmp_path / "log").rename(tmp_path / "moved")
    reopen_log_files()
    log.info("second")
    assert "first" in (tmp_path / "moved").read_text() and "second" in (tmp_path / "log").read_text()


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="gone/log: No such file or directory; a file in a folder that exists"):
        Logging(log_file=tmp_path / "gone" / "log").start()
