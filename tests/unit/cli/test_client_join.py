"""A client sends inputs to the PTM service that its user names, and to another only if the user accepts that."""

import pytest

from fedbbpt.cli.client import announced_ptm
from fedbbpt.errors import InvalidInput, PtmNotAccepted

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
