"""How signals end a command.

SIGTERM ends it in order, with an exit code by which a supervisor can tell it from one that has finished its work.
Imported at the start of every command, so it imports little.
"""

import signal
import threading
from typing import NoReturn

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and after SIGTERM, as a shell would report them."""


def exit_on_sigterm() -> None:
    """Makes SIGTERM end this process as an exception does: `with` blocks and `finally` clauses run."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: object) -> NoReturn:
    raise SystemExit(TERMINATED)
