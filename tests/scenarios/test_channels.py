"""Channels to a service: a token never leaves this machine without encryption."""

import pytest

from fedbbpt.errors import InsecureAddress
from fedbbpt.wire.channel import connect


@pytest.mark.parametrize("address", ["127.0.0.1:1,10.0.0.1:1", "dns:///ptm.example.org:7001", "10.0.0.1:1"])
def test_token_is_sent_unencrypted_to_loopback_only(address: str) -> None:
    with pytest.raises(InsecureAddress):
        connect(address, token="secret")
    connect("127.0.0.1:1,localhost:2", token="secret").close()
