"""What both services find wrong about a client, and a bell that rings whenever something happens."""

import asyncio
from collections.abc import Callable

from fedbbpt.conformance.results import Broken


class Findings:
    """Collects what breaks a claim, and lets a trial wait for what it expects."""

    def __init__(self, seconds: float) -> None:
        """`seconds`: how long anything that must happen may take."""
        self.seconds = seconds
        self._broken: list[str] = []
        self._bell = asyncio.Event()

    def broken(self, text: str) -> None:
        """Notes something that no client may do."""
        self._broken.append(text)
        self._bell.set()

    def changed(self) -> None:
        """Lets those who wait look again."""
        self._bell.set()

    def check(self) -> None:
        """Raises Broken with the first thing that is wrong, if any."""
        if self._broken:
            raise Broken(self._broken[0])

    async def until(self, condition: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        """Waits for a condition. Raises Broken if anything is wrong, or if `what` does not happen in time."""
        deadline = asyncio.get_running_loop().time() + (seconds or self.seconds)
        while True:
            self._bell.clear()
            self.check()
            if condition():
                return
            left = deadline - asyncio.get_running_loop().time()
            try:
                await asyncio.wait_for(self._bell.wait(), left)
            except TimeoutError:
                raise Broken(f"{what} did not happen within {seconds or self.seconds:g} s") from None
