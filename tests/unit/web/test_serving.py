"""A web application listens beyond loopback only with TLS and credentials, unless `insecure` allows it."""

from pathlib import Path

import pytest

from fedbbpt.errors import InsecureAddress
from fedbbpt.web.serving import WebAddress, check_who_may_reach
from fedbbpt.wire.tls import ServerTls

TLS = ServerTls(Path("hub.pem"), Path("hub.key"))
MUTUAL = ServerTls(Path("hub.pem"), Path("hub.key"), Path("ca.pem"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_nothing(host: str) -> None:
    check_who_may_reach(WebAddress(host), asks=False)


@pytest.mark.parametrize(
    ("tls", "asks", "missing"),
    [
        (None, False, "the server has no TLS"),
        (None, True, "the server has no TLS"),
        (TLS, False, "without a token"),
    ],
)
def test_other_machines_need_tls_and_a_token(
    tls: ServerTls | None, asks: bool, missing: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(InsecureAddress, match=missing) as refused:
        check_who_may_reach(WebAddress("0.0.0.0", tls=tls), asks=asks)
    assert "--insecure" in refused.value.fix
    check_who_may_reach(WebAddress("0.0.0.0", tls=tls, insecure=True), asks=asks)
    assert "INSECURE" in caplog.text


def test_a_token_or_a_certificate_is_enough_with_tls() -> None:
    check_who_may_reach(WebAddress("0.0.0.0", tls=TLS), asks=True)
    check_who_may_reach(WebAddress("0.0.0.0", tls=MUTUAL), asks=False)
