"""How long a service runs: until its work is done or somebody asks it to end; then it ends in order."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

GRACE_SECONDS = 2.0
"""For calls that are under way."""
LINGER_SECONDS = 10.0
"""After the work is done: whoever lost its line just then comes back and hears of it."""


def announce(role: str, host: str, port: int, address_file: Path | None) -> None:
    """Prints where the service listens, and writes it to the file, whole or not at all."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    print(f"{role} listens on {address}", flush=True)
    if address_file is not None:
        partial = address_file.with_suffix(".partial")
        partial.write_text(address + "\n")
        partial.replace(address_file)


async def until_done(stop: Callable[[float], Awaitable[None]], done: asyncio.Task[None] | None = None) -> None:
    """Waits for `done`, SIGTERM or SIGINT, then `stop`s, which lets open calls end. Raises what broke `done`."""
    loop, asked = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked.set)
    ending = asyncio.create_task(asked.wait())
    try:
        await asyncio.wait({ending, done} if done else {ending}, return_when=asyncio.FIRST_COMPLETED)
        if done is not None and done.done():
            done.result()
            await asyncio.wait({ending}, timeout=LINGER_SECONDS)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        ending.cancel()
        await stop(GRACE_SECONDS)
