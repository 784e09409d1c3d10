"""Runs the client under test: a command with placeholders, whose output goes to a file."""

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedbbpt.errors import InvalidInput
from fedbbpt.host.printable import printable

PLACEHOLDERS = {
    "coordinator": "HOST:PORT of the coordinator",
    "ptm": "HOST:PORT of the PTM service, which Join announces too",
    "data": "the file with the client's examples, JSONL with `text` and `label`",
    "dev": "a second such file, with examples to measure prompts on",
    "client": "the client's id",
    "state": "an empty folder for what outlives the process; the same one when the client is started again",
}
"""The placeholders of a command, without their braces, and what they stand for."""
TAIL_LINES = 3


def filled(command: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """Returns the command with its placeholders filled in."""
    found = []
    for word in command:
        for name, value in values.items():
            word = word.replace("{" + name + "}", value)
        found.append(word)
    return found


def check(command: Sequence[str]) -> None:
    """Raises InvalidInput for a command that cannot be told where the coordinator and its data are."""
    if not command:
        raise InvalidInput("no command is given", where="CMD", fix="-- CMD ..., or --list")
    for name in ("coordinator", "data"):
        if not any("{" + name + "}" in word for word in command):
            fix = f"an argument with {{{name}}}, {PLACEHOLDERS[name]}"
            raise InvalidInput("the command does not say where the run is", where="CMD", fix=fix)


class ClientProcess:
    """One process of the client, which leads a group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, ended: Callable[[], None]) -> None:
        self._process, self._log = process, log
        self._waiting = asyncio.create_task(self._wait(ended))

    @classmethod
    async def start(cls, words: Sequence[str], log: Path, ended: Callable[[], None]) -> "ClientProcess":
        """Starts the command; `ended` is called when it ends. Raises InvalidInput if there is no such program."""
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                fix = "a program that can be started, and its arguments"
                raise InvalidInput(error.strerror or str(error), where=words[0], fix=fix) from None
        return cls(process, log, ended)

    async def _wait(self, ended: Callable[[], None]) -> None:
        await self._process.wait()
        ended()

    @property
    def code(self) -> int | None:
        """The exit code; None while the client runs."""
        return self._process.returncode

    async def kill(self) -> None:
        """Kills the whole group."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self._waiting

    def last_words(self) -> str:
        """Returns the end of the client's output, for a message."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return printable(" / ".join(lines[-TAIL_LINES:]))[-600:]
