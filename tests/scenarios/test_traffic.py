"""The traffic meter reads the kernel's counts of a real connection."""

import socket

import pytest

from fedbbpt.wire.traffic import TrafficMeter


@pytest.mark.skipif(not TrafficMeter().supported, reason="only Linux counts the bytes of a socket")
def test_traffic_meter_counts_the_bytes_of_a_peer() -> None:
    meter = TrafficMeter()
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            served, (host, port) = server.accept()
            with served:
                meter.register(f"ipv4:{host}:{port}")
                client.sendall(b"x" * 1000)
                got = 0
                while got < 1000:
                    got += len(served.recv(4096))
                assert meter.read() == (1000, 0)
    after = meter.read()
    assert after is not None and after[0] == 1000, "a closed connection keeps its count"
