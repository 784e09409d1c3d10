"""A client sends inputs to the PTM service that its user names, and to another only if the user accepts that."""

from pathlib import Path

import pytest

from fedbbpt.cli.client import announced_ptm
from fedbbpt.errors import InvalidInput, NotPrivate, PtmNotAccepted
from fedbbpt.federation import assemble
from fedbbpt.federation.splits import prepare
from fedbbpt.job.config import Job
from fedbbpt.job.settings import run_settings
from fedbbpt.types import Hello, RunSettings
from tests.tiny_run import job, secure

LOCAL, FAR = "127.0.0.1:7001", "ptm.elsewhere.org:7001"


@pytest.mark.parametrize(
    ("announced", "coordinator"),
    [
        (FAR, "127.0.0.1:7000"),
        (FAR, "hub.example.org:7000"),
        (LOCAL, "hub.example.org:7000"),
        (f"{LOCAL},{FAR}", "127.0.0.1:7000"),
        ("dns:///localhost.elsewhere.org:7001", "127.0.0.1:7000"),
        ("0.0.0.0:7001", "127.0.0.1:7000"),
    ],
)
def test_coordinator_cannot_choose_where_inputs_go(announced: str, coordinator: str) -> None:
    """Kills: a coordinator that names a service of its own, which gets every input."""
    with pytest.raises(PtmNotAccepted, match=r"wants this client's inputs at .* or --accept-ptm"):
        announced_ptm(announced, coordinator, accepted=False)
    assert announced_ptm(announced, coordinator, accepted=True) == announced


@pytest.mark.parametrize("announced", [LOCAL, "[::1]:7001", f"{LOCAL},localhost:7002", "unix:/run/ptm.sock"])
def test_on_one_machine_the_announced_service_is_used(announced: str) -> None:
    assert announced_ptm(announced, "localhost:7000,127.0.0.1:7001", accepted=False) == announced


def test_announced_address_must_be_one() -> None:
    with pytest.raises(InvalidInput, match="neither the coordinator nor this client"):
        announced_ptm("", "127.0.0.1:7000", accepted=True)
    with pytest.raises(InvalidInput, match="has no port"):
        announced_ptm("ptm.example.org", "127.0.0.1:7000", accepted=True)


class Joined:
    """A link to a run that records whether the client has left it again."""

    def __init__(self, job: Job) -> None:
        self._settings, self.left = run_settings(prepare(job).job, "run-1"), False

    def join(self, hello: Hello) -> RunSettings:
        return self._settings

    def leave(self) -> None:
        self.left = True


def test_a_client_that_requires_secure_aggregation_leaves_other_runs(data: Path) -> None:
    """Kills: a client that answers in the clear because the coordinator did not say that it wants sums."""
    hello, plain, hidden = assemble.hello("north", "key", 3), Joined(job(data)), Joined(secure(job(data)))
    with pytest.raises(NotPrivate, match="the coordinator would read this client's updates"):
        assemble.join(plain, hello, require_secure=True)  # type: ignore[arg-type]  # it needs no more of a link
    assert plain.left
    assemble.join(hidden, hello, require_secure=True)  # type: ignore[arg-type]  # as above
    assemble.join(Joined(job(data)), hello)  # type: ignore[arg-type]  # as above
    assert not hidden.left
