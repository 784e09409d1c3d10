"""A connection that fails for good is told as what it is, at once, with the option that mends it."""

import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from fedbbpt import errors
from fedbbpt.errors import FedbbptError
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.fake import Fake
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.wire.channel import connect
from fedbbpt.wire.peers import PTM
from fedbbpt.wire.tls import ClientTls, ServerTls
from tests.command_line import CommandLine, write_job
from tests.wrong_servers import HttpAnswers, WrongServer, hang_up, other_protocol, tls_web_server, web_server

DAY = timedelta(days=1)


class Files:
    """Certificates and keys in a folder, of an authority that callers trust and of a stranger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours, stranger, now = trustme.CA(), trustme.CA(), datetime.now(UTC)
        ours.cert_pem.write_to_path(folder / "ca.pem")
        stranger.cert_pem.write_to_path(folder / "stranger.pem")
        self._issue("server", ours, "127.0.0.1")
        self._issue("elsewhere", ours, "hub.example.org")
        self._issue("old", ours, "127.0.0.1", now - 9 * DAY, now - DAY)
        self._issue("early", ours, "127.0.0.1", now + DAY, now + 9 * DAY)
        self._issue("caller", ours, "north.example.org")
        self._issue("unknown", stranger, "north.example.org")

    def _issue(self, name: str, authority: trustme.CA, host: str, *validity: datetime) -> None:
        begin, end = validity or (None, None)
        issued = authority.issue_cert(host, not_before=begin, not_after=end)
        issued.private_key_pem.write_to_path(self.folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(self.folder / f"{name}.pem")

    def server(self, name: str, *, callers: bool = False) -> ServerTls:
        """Returns a server's files. With `callers`, it admits only callers with a certificate."""
        ca = self.folder / "ca.pem" if callers else None
        return ServerTls(self.folder / f"{name}.pem", self.folder / f"{name}.key", ca)

    def client(self, ca: str = "ca", certificate: str = "") -> ClientTls:
        """Returns a client's files."""
        if not certificate:
            return ClientTls(self.folder / f"{ca}.pem")
        return ClientTls(
            self.folder / f"{ca}.pem", self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key"
        )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def listen() -> Iterator[Callable[..., int]]:
    """Starts a wrong server and returns its port."""
    started: list[WrongServer] = []

    def start(behaviour: Any) -> int:
        started.append(WrongServer(behaviour))
        return started[-1].port

    yield start
    for server in started:
        server.close()


def failure(port: int, tls: ClientTls | None = None) -> FedbbptError:
    """Returns the error that a patient caller gets without waiting."""

    def pause(seconds: float) -> None:
        pytest.fail("the caller waits for what waiting does not mend")

    with connect(f"127.0.0.1:{port}", tls, peer=PTM) as channel, pytest.raises(FedbbptError) as raised:
        RemotePtm(channel, call_seconds=10.0, patience_seconds=600.0, pause=pause)
    assert raised.value.where in ("", f"127.0.0.1:{port}")
    return raised.value


TLS: dict[str, tuple[ServerTls | str, tuple[str, ...] | None, str, str]] = {
    "unknown authority": ("server", ("stranger",), "was not signed by an authority in", "--ptm-tls-ca"),
    "wrong name": ("elsewhere", (), "certificate is for hub.example.org, not for 127.0.0.1", "--ptm with a host"),
    "expired": ("old", (), "the server's certificate has expired", "a new certificate"),
    "not yet valid": ("early", (), "the server's certificate is not valid yet", "clock"),
    "caller without TLS": ("server", None, "the server requires TLS", "--ptm-tls-ca with the authority"),
    "server without TLS": ("", (), "the server has no TLS", "no --ptm-tls-ca"),
    "no certificate of the caller": ("server+", (), "may admit only callers with a certificate", "--ptm-client-cert"),
    "refused certificate": ("server+", ("ca", "unknown"), "the server refuses the certificate in", "--ptm-client-cert"),
    "neither": ("server+", None, "the server requires TLS", "--ptm-tls-ca with the authority"),
}
"""The server's certificate ("+": it asks callers for one), the caller's files, the message and its fix."""


@pytest.mark.parametrize("case", TLS)
def test_a_tls_failure_is_told_with_the_option_that_mends_it(case: str, files: Files, ptm_servers: Any) -> None:
    served, shown, what, fix = TLS[case]
    name = str(served)
    tls = files.server(name.rstrip("+"), callers=name.endswith("+")) if name else None
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tls=tls)
    error = failure(port, None if shown is None else files.client(*shown))
    assert isinstance(error, errors.TlsFailed)
    assert what in error.what and fix in error.fix


def test_the_right_certificates_connect(files: Files, ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tls=files.server("server", callers=True))
    with connect(f"127.0.0.1:{port}", files.client(certificate="caller"), peer=PTM) as channel:
        assert RemotePtm(channel).describe().model == "fake"


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("behaviour", [web_server, other_protocol])
def test_another_server_is_told_apart_from_one_that_is_down(
    behaviour: Any, tls: bool, files: Files, listen: Callable[..., int]
) -> None:
    error = failure(listen(behaviour), files.client() if tls else None)
    assert isinstance(error, errors.WrongService) and "answers" in error.what
    assert error.fix == "the address of the PTM service"


def test_a_web_server_with_tls_is_no_grpc_service(files: Files, listen: Callable[..., int]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.folder / "server.pem", files.folder / "server.key")
    error = failure(listen(tls_web_server(context)), files.client())
    assert isinstance(error, errors.WrongService) and "speaks TLS, but not HTTP/2" in error.what


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("up", "what"), [(False, "connection refused"), (True, "the server closes the connection")], ids=["down", "up"]
)
def test_a_service_that_may_come_up_is_waited_for(
    up: bool, what: str, tls: bool, files: Files, listen: Callable[..., int]
) -> None:
    server, pauses = WrongServer(hang_up), list[float]()
    server.close()
    port = listen(hang_up) if up else server.port
    with connect(f"127.0.0.1:{port}", files.client() if tls else None, peer=PTM) as channel:
        with pytest.raises(errors.PtmUnavailable, match=what):
            RemotePtm(channel, patience_seconds=3.0, clock=lambda: float(len(pauses)), pause=pauses.append)
    assert len(pauses) >= 3


PEM: dict[str, tuple[str, str]] = {
    "a key as the authority": ("server.key", "the file holds no certificate, but a private key"),
    "no PEM": ("words.pem", "the file holds no certificate"),
    "a broken certificate": ("broken.pem", "a certificate in the file cannot be read"),
    "no file": ("gone.pem", "No such file"),
}


@pytest.mark.parametrize("case", PEM)
def test_an_unusable_authority_is_refused_with_its_file(case: str, files: Files) -> None:
    (files.folder / "words.pem").write_text("a certificate")
    (files.folder / "broken.pem").write_text("-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----\n")
    name, what = PEM[case]
    with pytest.raises(errors.InvalidInput) as raised:
        connect("127.0.0.1:1", ClientTls(files.folder / name))
    assert what in raised.value.what and raised.value.where == str(files.folder / name) and raised.value.fix


@pytest.mark.parametrize(
    ("certificate", "key", "what"),
    [
        ("caller.pem", "server.key", "the key does not belong to the certificate"),
        ("caller.key", "caller.pem", "the file holds no private key, but a certificate"),
        ("caller.pem", "encrypted.key", "the key is encrypted"),
    ],
)
def test_an_unusable_pair_is_refused(certificate: str, key: str, what: str, files: Files) -> None:
    label = "ENCRYPTED PRIVATE KEY"
    (files.folder / "encrypted.key").write_text(f"-----BEGIN {label}-----\nMAAA\n-----END {label}-----\n")
    with pytest.raises(errors.InvalidInput, match=what):
        connect("127.0.0.1:1", ClientTls(files.folder / "ca.pem", files.folder / certificate, files.folder / key))


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [(413, 8, "too large (HTTP 413"), (403, 5, "forbids the call (HTTP 403"), (404, 8, "(HTTP 404 Not Found)")],
)
def test_a_client_ends_when_a_proxy_refuses_its_calls(
    status: int, code: int, message: str, command_line: CommandLine, tmp_path: Path, listen: Callable[..., int]
) -> None:
    """Kills: ten minutes of retries for a message that no proxy will ever let through."""
    write_job(tmp_path)
    answers = HttpAnswers(status)
    address = f"127.0.0.1:{listen(answers)}"
    ended = command_line("client", "join", "--coordinator", address, "--data", "questions.csv")
    assert ended.code == code and message in ended.message and "hint: " in ended.message
    assert answers.calls <= 2  # the second one on a new connection, since a damaged one may look like this


def test_status_names_the_cause(command_line: CommandLine, files: Files, ptm_servers: Any) -> None:
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tls=files.server("elsewhere"))
    ended = command_line("status", "--coordinator", f"127.0.0.1:{port}", "--tls-ca", str(files.folder / "ca.pem"))
    assert ended.code == 5 and "certificate is for hub.example.org, not for 127.0.0.1" in ended.message
    assert "hint: --coordinator with a host in the certificate" in ended.message


def test_the_hint_names_what_holds_the_address(command_line: CommandLine, files: Files, ptm_servers: Any) -> None:
    """Kills: a hint at --ptm from commands that have no such option."""
    port = ptm_servers.start(Engine(Fake(), time.monotonic), tls=files.server("elsewhere"))
    for command in ("describe", "usage"):
        ended = command_line("ptm", command, f"127.0.0.1:{port}", "--ptm-tls-ca", str(files.folder / "ca.pem"))
        assert ended.code == 5 and "hint: HOST:PORT with a host in the certificate" in ended.message
