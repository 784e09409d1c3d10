"""Runs the cases, some of them at a time, and compares the outcomes with the known failures."""

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from fedbbpt.conformance.client.cases import Case
from fedbbpt.conformance.client.trial import Trial
from fedbbpt.conformance.results import Broken, Outcome, Result, Skipped


async def run(
    command: Sequence[str],
    cases: Sequence[Case],
    known_failing: frozenset[str],
    tell: Callable[[Result], None],
    *,
    at_once: int = 2,
    seconds: float = 30.0,
    folder: Path | None = None,
) -> list[Result]:
    """Plays the cases, and passes each result to `tell` as soon as it is known.

    Args:
        command: The client's command, with placeholders.
        cases: The cases.
        known_failing: The names of those that are known to fail.
        tell: Gets each result.
        at_once: How many cases are played at a time.
        seconds: How long anything that must happen may take.
        folder: Where to keep the files of all cases; None: nowhere.

    Returns:
        The results in the order of the cases.
    """
    turns = asyncio.Semaphore(at_once)

    async def play(case: Case, folder: Path) -> Result:
        async with turns:
            started = time.monotonic()
            outcome, detail = await _try(case, command, folder, seconds)
            result = Result(case, outcome.if_known(case.name in known_failing), detail, time.monotonic() - started)
            tell(result)
            return result

    with tempfile.TemporaryDirectory(prefix="fedbbpt-conformance-") as temporary:
        root = folder or Path(temporary)
        folders = [root / case.name.replace("/", "-") for case in cases]
        for each in folders:
            each.mkdir(parents=True)
        return [*await asyncio.gather(*map(play, cases, folders))]


async def _try(case: Case, command: Sequence[str], folder: Path, seconds: float) -> tuple[Outcome, str]:
    try:
        await Trial(case, command, folder, seconds).play()
    except Skipped as reason:
        return Outcome.SKIPPED, str(reason)
    except Broken as broken:
        return Outcome.FAILED, str(broken)
    return Outcome.PASSED, ""
