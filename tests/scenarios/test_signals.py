"""Signals to real processes: SIGTERM ends each role in order, and SIGHUP makes it read its files again."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from fedbbpt.cli.terminal.signals import TERMINATED
from fedbbpt.data.examples import write_jsonl
from fedbbpt.errors import Unauthenticated
from fedbbpt.federation.splits import Splits, prepare
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, token_digest, write_tokens
from fedbbpt.job.job_file import job_text
from fedbbpt.server.remote import RemoteRun
from fedbbpt.wire.channel import connect
from fedbbpt.wire.tls import ClientTls
from tests.processes import Machine
from tests.tiny_run import job

ROUNDS = 50_000
"""More than any test plays."""


class Roles:
    """A PTM service, a coordinator and a client, each with TLS and a token."""

    def __init__(self, machine: Machine, splits: Splits) -> None:
        self.machine, self.folder = machine, machine.folder
        self.certify()
        self.admit("first")
        (self.folder / "token").write_text("first\n")
        (self.folder / "job.toml").write_text(job_text(splits.job))
        write_jsonl(self.folder / "train.jsonl", splits.train[0], splits.job.task.labels)
        server = ("--tls-cert", "server.pem", "--tls-key", "server.key", "--tokens", "tokens")
        machine.start("ptm", "ptm", "serve", "--model", "fake", *server)
        ptm = machine.address("ptm")
        machine.start("coordinator", "coordinator", "serve", "job.toml", "--ptm", ptm, *server)
        self.address = machine.address("coordinator")
        caller = ("--tls-ca", "ca.pem", "--token-file", "token", "--ptm-tls-ca", "ca.pem", "--ptm-token-file", "token")
        places = ("--coordinator", self.address, "--data", "train.jsonl", "--one-class", "--name", "north")
        machine.start("client", "client", "join", *places, *caller)

    def certify(self) -> None:
        """Writes certificates of a new authority in place of the old ones."""
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        issued.private_key_pem.write_to_path(self.folder / "server.key")
        issued.cert_chain_pems[0].write_to_path(self.folder / "server.pem")

    def admit(self, *tokens: str) -> None:
        """Writes the tokens of the client north in place of the old ones."""
        write_tokens(self.folder / "tokens", [Token("north", Role.CLIENT, token_digest(token)) for token in tokens])

    def ask(self, token: str) -> str:
        """Asks the coordinator over a new connection, and returns the run's state."""
        with connect(self.address, ClientTls(self.folder / "ca.pem"), token) as channel:
            return RemoteRun(channel).status().state


@pytest.fixture
def roles(tmp_path: Path, data: Path) -> Iterator[Roles]:
    with Machine(tmp_path) as machine:
        yield Roles(machine, prepare(job(data, rounds=ROUNDS, clients=1)))


def test_sigterm_ends_each_role_in_order_with_a_code_of_its_own(roles: Roles) -> None:
    """It comes in the middle of rounds, and says what a finished run does not."""
    machine = roles.machine
    machine.until_log("coordinator", "round 3: closed")
    for name in ("ptm", "coordinator", "client"):
        assert machine.end(name) == TERMINATED, machine.log(name)
        assert "Traceback" not in machine.log(name) and "ERROR" not in machine.log(name), machine.log(name)


@pytest.mark.slow
def test_sighup_reads_tokens_and_certificates_again_at_each_role(roles: Roles) -> None:
    machine = roles.machine
    machine.until_log("coordinator", "round 1: closed")
    assert roles.ask("first") == "running"
    roles.certify()
    roles.admit("first", "second")
    (roles.folder / "token").write_text("second\n")
    for name in ("ptm", "coordinator", "client"):
        machine.send(name, signal.SIGHUP)
        machine.until_log(name, "read again: ")
    roles.admit("second")
    for name in ("ptm", "coordinator"):
        machine.send(name, signal.SIGHUP)
        machine.until_log(name, "read again: ", times=2)
    assert roles.ask("second") == "running"
    with pytest.raises(Unauthenticated, match="no valid token"):
        roles.ask("first")
    closed = machine.log("coordinator").count("closed with")
    machine.until_log("coordinator", f"round {closed + 3}: closed")  # the client shows the new token


@pytest.mark.slow
def test_a_changed_file_needs_no_signal_and_an_invalid_one_is_refused_in_words(roles: Roles) -> None:
    roles.admit("second")
    for name in ("ptm", "coordinator"):
        roles.machine.until_log(name, "read again: ")
    assert roles.ask("second") in ("waiting", "running")
    (roles.folder / "server.key").write_text("not a key")
    (roles.folder / "tokens").write_text("\n")
    for name in ("ptm", "coordinator"):
        roles.machine.until_log(name, "not read again, and the old ones stay in use: ")
    assert roles.ask("second") in ("waiting", "running")
    with pytest.raises(Unauthenticated):
        roles.ask("first")
