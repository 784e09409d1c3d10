"""The log of a command: where its lines go, which ones, and in which form."""

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbbpt.cli.terminal.console import err
from fedbbpt.cli.terminal.progress import in_log, on_console
from fedbbpt.errors import InvalidInput
from fedbbpt.host.printable import printable
from fedbbpt.host.progress import show_progress

LOG = "Log"
"""Heading under which help texts list the options."""
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class LogLevel(StrEnum):
    """The least severe lines that a log has."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of a line in a log."""

    TEXT = "text"
    JSON = "json"


class _TextLines(logging.Formatter):
    """Writes each record on one line, with control characters escaped; a trace follows on lines of its own."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Returns the line without the trace."""
        return printable(super().formatMessage(record))


class _JsonLines(logging.Formatter):
    """Writes each record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line)


@dataclass(frozen=True, slots=True)
class Logging:
    """The log of a role that runs for long."""

    log_level: Annotated[LogLevel, typer.Option(help="The least severe lines to log.", rich_help_panel=LOG)] = (
        LogLevel.INFO
    )
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for people, or one JSON object on each line.", rich_help_panel=LOG)
    ] = LogFormat.TEXT
    log_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to log to, in place of standard error.",
            rich_help_panel=LOG,
            show_default=False,
        ),
    ] = None
    log_megabytes: Annotated[
        int,
        typer.Option(min=0, help="Megabytes after which --log-file becomes FILE.1; 0 never.", rich_help_panel=LOG),
    ] = 100
    log_files: Annotated[int, typer.Option(min=1, help="How many such older files are kept.", rich_help_panel=LOG)] = 5

    def start(self) -> None:
        """Sends this process's log lines where the options say. Raises InvalidInput if the file cannot be written."""
        handler: logging.Handler = logging.StreamHandler(sys.stderr)
        if self.log_file is not None:
            size = self.log_megabytes * 1_000_000
            try:
                handler = RotatingFileHandler(self.log_file, maxBytes=size, backupCount=self.log_files)
            except OSError as error:
                fix = "a file in a folder that exists and can be written"
                raise InvalidInput(error.strerror or str(error), where=str(self.log_file), fix=fix) from None
        handler.setFormatter(_JsonLines() if self.log_format is LogFormat.JSON else _TextLines())
        _log_to(handler, logging.getLevelNamesMapping()[self.log_level.upper()])
        show_progress(in_log())


def log_to_stderr(level: int) -> None:
    """Sends log lines of at least `level` to standard error, where the progress of long work is shown as well."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_TextLines())
    _log_to(handler, level)
    show_progress(on_console(err))


def _log_to(handler: logging.Handler, level: int) -> None:
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("httpx2").setLevel(max(level, logging.WARNING))  # it logs every request at INFO


def reopen_log_files() -> None:
    """Opens the log file anew under its name, which a program that rotates logs may have given to another file."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.acquire()
            try:
                handler.close()  # the next line opens it again
            finally:
                handler.release()
