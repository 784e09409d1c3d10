"""Time is monotonic: no deadline, timeout or order depends on the wall clock, which an operator or NTP may set."""

import ast
from pathlib import Path

import fedbbpt

PACKAGE = Path(fedbbpt.__file__).parent
READS_THE_WALL_CLOCK = {
    "bench/page.py": "the date of a measurement",
    "federation/simulation.py": "the time at which a run began, for people",
    "federation/served_runs.py": "the time at which a run began, for people",
    "server/events.py": "the time of an event, for people",
    "server/service.py": "the time of a report of trouble, for people",
    "web/dashboard/live_runs.py": "the time at which a coordinator fell silent, for people",
    "ptm/models/openai/http.py": "Retry-After of HTTP may be a date",
    "host/audit.py": "the time of a record, for people",
    "identity/authority.py": "invitations and certificates end at a date",
    "identity/revocation.py": "lists of revoked certificates end at a date",
    "report/page.py": "the date of a page",
    "sinks/mlflow.py": "the time of a figure, for people",
    "identity/issuing.py": "invitations and certificates end at a date",
}


def wall_clock(tree: ast.AST) -> set[str]:
    """Returns the calls of time.time, datetime.now and the like."""
    names = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return {call for call in calls if call in names or call.removeprefix("datetime.") in names}


def test_the_wall_clock_is_read_for_people_only() -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if wall_clock(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found <= READS_THE_WALL_CLOCK.keys()


def test_a_call_of_the_wall_clock_is_found() -> None:
    assert wall_clock(ast.parse("import time\nx = time.time() + 3")) == {"time.time"}
