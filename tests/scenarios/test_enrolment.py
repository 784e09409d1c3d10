"""An authority, invitations, certificates and their end, with real processes over TLS."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedbbpt.data.examples import write_jsonl
from fedbbpt.errors import MessageTooLarge, TlsFailed, Unauthenticated
from fedbbpt.federation.splits import prepare
from fedbbpt.identity.authority import Authority
from fedbbpt.identity.certificates import identity_of
from fedbbpt.identity.issuing import new_key, signing_request
from fedbbpt.identity.roles import Role
from fedbbpt.job.job_file import job_text
from fedbbpt.limits import MAX_STRANGER_BYTES
from fedbbpt.server.enrolment_service import serve_enrolment
from fedbbpt.wire.enrolment import enrol, fetch_authority
from fedbbpt.wire.tls import ServerTls
from tests.command_line import CommandLine, Ended
from tests.federation import AdvancingLoop
from tests.processes import Machine
from tests.tiny_run import job

ROUNDS = 50_000


class Federation:
    """A PTM, and a coordinator with an authority."""

    def __init__(self, machine: Machine, data: Path, ask: CommandLine) -> None:
        self.machine, self.folder, self.ask = machine, machine.folder, ask
        splits = prepare(job(data, rounds=ROUNDS, clients=1))
        (self.folder / "job.toml").write_text(job_text(splits.job))
        write_jsonl(self.folder / "train.jsonl", splits.train[0], splits.job.task.labels)
        self.run("admin", "init-ca", "127.0.0.1")
        pair = ("--tls-cert", "authority/127.0.0.1.pem", "--tls-key", "authority/127.0.0.1.key")
        machine.start("ptm", "ptm", "serve", "--model", "fake")
        words = ("coordinator", "serve", "job.toml", "--ptm", machine.address("ptm"), "--authority", "authority")
        machine.start("coordinator", *words, "--enrol-port", "0", *pair)
        self.address, self.enrolment = (machine.address("coordinator") for _ in range(2))

    def run(self, *words: str) -> Ended:
        ended: Ended = self.ask(*words)
        assert ended.code == 0, ended.message
        return ended

    def member(self, name: str) -> tuple[str, ...]:
        """Returns the options of a member that has enrolled."""
        files = ("--tls-ca", f"{name}/ca.pem", "--client-cert", f"{name}/cert.pem", "--client-key", f"{name}/key.pem")
        return "--coordinator", self.address, *files

    def enrol(self, name: str, *options: str) -> None:
        invitation = self.run("admin", "invite", name, *options).out.strip()
        self.run("enrol", "--invitation", invitation, "--coordinator", self.enrolment, "--out", name)


@pytest.fixture
def federation(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, command_line: CommandLine
) -> Iterator[Federation]:
    monkeypatch.chdir(tmp_path)
    with Machine(tmp_path) as machine:
        yield Federation(machine, data, command_line)


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    return Authority.found(tmp_path / "authority")


@pytest.fixture
def enrolment(ours: Authority, server_loop: AdvancingLoop) -> Iterator[str]:
    """The address of an authority's server in this process, with TLS."""
    tls = ServerTls(*ours.certify_server("127.0.0.1"))
    starting = serve_enrolment(ours, "127.0.0.1", 0, tls)
    serving = asyncio.run_coroutine_threadsafe(starting, server_loop).result()
    yield f"127.0.0.1:{serving.port}"
    asyncio.run_coroutine_threadsafe(serving.server.stop(None), server_loop).result()


def test_message_of_somebody_without_a_certificate_is_small(ours: Authority, enrolment: str) -> None:
    """Kills: strangers whose messages of 32 MiB the service holds while they enrol."""
    with pytest.raises(MessageTooLarge):
        enrol(enrolment, ours.ca, "token", bytes(MAX_STRANGER_BYTES))


def test_an_invited_member_gets_a_certificate_over_tls(ours: Authority, enrolment: str) -> None:
    """Kills: a token that is sent before the authority is recognised, and an invitation for a second key."""
    invitation = ours.invite("north", Role.CLIENT, 1.0)
    assert fetch_authority(enrolment, invitation) == ours.ca.read_bytes()
    with pytest.raises(TlsFailed, match="not the one of the invitation"):
        fetch_authority(enrolment, replace(invitation, fingerprint=bytes(32)))
    request = signing_request(new_key())
    for _ in range(2):  # the second is that of a member whose answer was lost
        holder = identity_of(enrol(enrolment, ours.ca, invitation.token, request))
        assert (holder.name, holder.role) == ("north", Role.CLIENT)
    with pytest.raises(Unauthenticated, match="was used for another key"):
        enrol(enrolment, ours.ca, invitation.token, signing_request(new_key()))


@pytest.mark.slow
def test_an_invited_member_joins_under_its_name_until_it_is_revoked(federation: Federation) -> None:
    machine = federation.machine
    federation.enrol("north")
    federation.enrol("desk", "--role", "operator")
    north, desk = federation.member("north"), federation.member("desk")
    machine.start("north", "client", "join", *north, "--data", "train.jsonl", "--one-class", "--accept-ptm")
    machine.until_log("coordinator", "round 1: closed")
    (member,) = json.loads(federation.run("members", "list", *desk, "--json").out)["members"]
    assert member["client_id"] == "north"
    for command in ("stop", "members list"):
        ended = federation.ask(*command.split(), *north)
        assert ended.code == 8 and "north has the role client, which may not call this" in ended.message
    federation.run("enrol", "--renew", "--coordinator", federation.address, "--out", "north")
    federation.run("admin", "revoke", "north", "--authority", "authority")
    assert machine.wait("north") == 5, machine.log("north")
    assert "the certificate of north was revoked" in machine.log("north")
    ended = federation.ask("status", *north)
    assert ended.code == 5 and "the certificate of north was revoked" in ended.message
    federation.run("status", *desk)


@pytest.mark.slow
def test_an_invitation_works_for_one_key_at_the_authority_that_it_names(federation: Federation) -> None:
    invitation = federation.run("admin", "invite", "north").out.strip()
    place = ("--coordinator", federation.enrolment)
    federation.run("enrol", "--invitation", invitation, *place, "--out", "north")
    assert (federation.folder / "north/key.pem").stat().st_mode & 0o077 == 0
    federation.run("enrol", "--invitation", invitation, *place, "--out", "north")  # repeats what was interrupted
    ended = federation.ask("enrol", "--invitation", invitation, *place, "--out", "thief")
    assert ended.code == 5 and "was used for another key" in ended.message
    other = invitation.partition(".")[0] + "." + "A" * 43
    ended = federation.ask("enrol", "--invitation", other, *place, "--out", "elsewhere")
    assert ended.code == 5 and "not the one of the invitation" in ended.message
    assert not (federation.folder / "elsewhere").exists(), "nothing is written and no token sent"
    ended = federation.ask("status", "--coordinator", federation.enrolment, "--tls-ca", "north/ca.pem")
    assert ended.code == 8 and "does not have this call" in ended.message
