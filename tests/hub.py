"""A coordinator with many runs, for tests of its operators and of roles."""

import asyncio
from pathlib import Path
from typing import Any

from fedbbpt.client.remote import RemoteCoordinator
from fedbbpt.federation.assemble import hello
from fedbbpt.federation.served_runs import RunFolders
from fedbbpt.federation.splits import Splits
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun, RemoteRuns
from fedbbpt.server.runs import Runs
from fedbbpt.server.service import CoordinatorServer, serve
from fedbbpt.types import NewRun
from fedbbpt.wire.channel import connect
from tests.federation import Client
from tests.tiny_run import CLIENTS, fake_ptm

NAMES = [f"client-{index:04d}" for index in range(CLIENTS)]


def tokens() -> list[Token]:
    """Returns a token of each role, whose text is its role, and one of each client, whose text is its name."""
    others = [Token(f"the {role}".replace(" ", "-"), role, token_digest(role)) for role in Role if role != Role.CLIENT]
    return [*others, *(Token(name, Role.CLIENT, token_digest(name)) for name in NAMES)]


class Hub:
    """A coordinator with two runs, one of which has tokens of its own."""

    def __init__(
        self, folder: Path, splits: Splits, loop: asyncio.AbstractEventLoop, members: list[Token] | None
    ) -> None:
        self._loop, self.splits = loop, splits
        self._folders = RunFolders(folder)
        self.serving: CoordinatorServer = asyncio.run_coroutine_threadsafe(
            serve(Runs(self._folders.runs, self._folders), tokens=members), loop
        ).result()
        text = job_text(splits.job)
        self.runs("operator").submit(NewRun("open", text))
        own = tuple(f"{name} client {token_digest(f'own {name}')}" for name in NAMES)
        self.runs("operator").submit(NewRun("private", text, tokens=own))

    def channel(self, token: str) -> Any:
        return connect(f"127.0.0.1:{self.serving.port}", token=token)

    def runs(self, token: str) -> RemoteRuns:
        return RemoteRuns(self.channel(token))

    def run(self, name: str = "", token: str = "operator") -> RemoteRun:
        return RemoteRun(self.channel(token), name)

    def client(self, index: int, run: str, token: str | None = None, key: str = "key") -> Client:
        token = NAMES[index] if token is None else token
        link = RemoteCoordinator(self.channel(token), run=run, pause=lambda seconds: None)
        examples = len(self.splits.train[index % len(self.splits.train)])
        return Client(link, hello(NAMES[index], key, examples), self.splits, index, fake_ptm())

    def reload(self, members: list[Token]) -> None:
        self._loop.call_soon_threadsafe(self.serving.reload, members)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.serving.stop(0.0), self._loop).result()
        self._folders.close()
