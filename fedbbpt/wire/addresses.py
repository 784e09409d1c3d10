"""Network addresses: which ones stay on this machine, and whether a port is free."""

import ipaddress
import socket

from fedbbpt.errors import PortTaken


def is_loopback(host: str) -> bool:
    """Returns whether `host` is "localhost" or a loopback address. IPv6 may be in brackets; no name is looked up."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_port_free(host: str, port: int) -> None:
    """Raises PortTaken with the operating system's reason if the port cannot be bound. Port 0 is always free.

    Called before gRPC binds, because gRPC's own error does not give the reason.
    """
    if port == 0:
        return
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            fix = "another port, or 0 for any free one"
            raise PortTaken(error.strerror or str(error), where=f"{host}:{port}", fix=fix) from None
