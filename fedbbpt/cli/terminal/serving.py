"""The life of a service: it announces its address, runs until its work is done or a signal comes, and then stops."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedbbpt.cli.terminal.bundles import Listening
from fedbbpt.cli.terminal.reloading import Reloading
from fedbbpt.cli.terminal.signals import TERMINATED
from fedbbpt.host.files import atomic_write
from fedbbpt.wire.descriptors import watch_descriptors

if TYPE_CHECKING:  # needs the extra `web`
    from fedbbpt.web.serving import WebServer

log = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long open calls may take to finish when a service stops."""
LINGER_SECONDS = 10.0
"""How long a service stays when its work is done, so that a client that lost its connection can learn of the end."""


def announce(role: str, host: str, port: int, address_file: Path | None) -> None:
    """Prints where the service listens, and writes the address to the file, if there is one, in one step."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"{role} listens on {address}", flush=True)
    if address_file is not None:
        atomic_write(address_file, address + "\n")


def serve_web(role: str, server: "WebServer", listening: Listening, watched: Reloading) -> None:
    """Announces a web application, and serves it until a signal comes. Changed files are read again meanwhile."""
    print(f"{role}: {server.url}/", flush=True)
    if listening.address_file is not None:
        atomic_write(listening.address_file, f"{server.url}/\n")
    with watched.by(lambda: server.reload(listening.members())):
        server.run()


async def until_done(stop: Callable[[float], Awaitable[None]], done: asyncio.Task[None] | None = None) -> None:
    """Waits for `done`, SIGTERM or SIGINT, then calls `stop` with the grace period.

    Raises what `done` raised; if a signal came before it was done, SystemExit or KeyboardInterrupt.
    """
    loop = asyncio.get_running_loop()
    asked, signals = asyncio.Event(), list[signal.Signals]()

    def ask(number: signal.Signals) -> None:
        signals.append(number)
        asked.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask, number)
    ending = asyncio.create_task(asked.wait())
    watching = asyncio.create_task(watch_descriptors())
    try:
        await asyncio.wait({ending, done} if done else {ending}, return_when=asyncio.FIRST_COMPLETED)
        if done is not None and done.done():
            done.result()
            await asyncio.wait({ending}, timeout=LINGER_SECONDS)
            return
    finally:
        await stop(GRACE_SECONDS)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        ending.cancel()
        watching.cancel()
    log.info("ended by %s", signals[0].name)
    if signals[0] is signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(TERMINATED)
