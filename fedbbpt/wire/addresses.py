"""Network addresses: whether other machines can reach them, and whether a port is free."""

import ipaddress
import logging
import socket

from fedbbpt.errors import InsecureAddress, PortTaken

log = logging.getLogger(__name__)


def is_loopback(host: str) -> bool:
    """Returns whether `host` is "localhost" or a loopback address. IPv6 may be in brackets; no name is looked up."""
    host = host.strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, insecure: bool, what: str, fix: str) -> None:
    """Checks the host that a server without TLS is going to listen on.

    Raises:
        InsecureAddress: Other machines can reach `host`. If `insecure` is true, this is only logged as a warning.
    """
    if is_loopback(host):
        return
    if not insecure:
        raise InsecureAddress(f"{what}, so anybody on the network could read and join", where=host, fix=fix)
    log.warning("INSECURE: %s is reachable without TLS; anybody on its network can read and join", host)


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
