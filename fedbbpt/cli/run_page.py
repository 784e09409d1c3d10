"""The dashboard of a run on this machine, as a process beside those of the run."""

from collections.abc import Callable
from pathlib import Path

from fedbbpt.errors import ChildFailed, InvalidInput
from fedbbpt.federation.processes import ProcessGroup
from fedbbpt.host.extras import require_package

START_SECONDS = 60.0
"""Time that the dashboard may take to start."""
_EXTRA = "web"


def require_dashboard() -> None:
    """Raises InvalidInput if the packages of the dashboard are not installed."""
    require_package("uvicorn", _EXTRA, where="--dashboard")


def has_dashboard() -> bool:
    """Returns whether the packages of the dashboard are installed."""
    try:
        require_dashboard()
    except InvalidInput:
        return False
    return True


def start_dashboard(group: ProcessGroup, folder: Path, coordinator: str, say: Callable[[str], None]) -> None:
    """Starts the dashboard of the run in a folder, and says its address.

    It ends with the group. A run goes on without it if it does not start.
    """
    file = folder / "dashboard.address"
    file.unlink(missing_ok=True)
    # Its folder is that of the run, so that its page shows the measurement of the result as well.
    group.start("dashboard", ["dashboard", str(folder), "--coordinator", coordinator, "--address-file", str(file)])
    try:
        say(f"dashboard: {group.address('dashboard', file, START_SECONDS)}")
    except ChildFailed as error:
        say(f"no dashboard: {error.where} says why")
