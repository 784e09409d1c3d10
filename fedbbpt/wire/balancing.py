"""Several servers of one service on one channel: calls are distributed round robin over the healthy ones.

A server is healthy if it reports SERVING for the empty service name of grpc.health.v1, or does not have that service.
"""

import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from fedbbpt.errors import InvalidInput, Unavailable

log = logging.getLogger(__name__)

_DNS = "dns:///"
_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_ROUND_ROBIN = (
    "grpc.service_config",
    json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}),
)


@dataclass(frozen=True, slots=True)
class Target:
    """An address in the form that gRPC needs."""

    name: str
    """The name to open the channel with."""
    hosts: tuple[str, ...]
    """The distinct hosts, as written in the address."""
    options: tuple[tuple[str, str], ...] = ()
    """Channel options that this address needs."""


def target(address: str, *, tls: bool) -> Target:
    """Returns the target of an address.

    Args:
        address: HOST:PORT, several of them separated by commas, or dns:///NAME:PORT for a name that has the addresses
            of several servers. The hosts of a list are resolved here, once.
        tls: Whether the channel uses TLS.

    Raises:
        InvalidInput: An item of a list is not HOST:PORT, or the hosts of a list differ although `tls` is true.
        Unavailable: None of the hosts of a list can be resolved.
    """
    if "," not in address:
        host = address.removeprefix(_DNS).rpartition(":")[0]
        return Target(address, (host,), (_ROUND_ROBIN,) if address.startswith(_DNS) else ())
    servers = [_host_and_port(item, address) for item in address.split(",")]
    hosts = tuple(dict.fromkeys(host for host, _ in servers))
    if tls and len(hosts) > 1:
        # A channel has one name, and checks the certificates of all servers against it.
        fix = f"one name with several ports, or {_DNS}NAME:PORT with a name for all of them"
        raise InvalidInput(f"{len(hosts)} different host names with TLS", where=address, fix=fix)
    # Without this option, gRPC would use the whole list as the authority.
    authority = ("grpc.default_authority", ":".join(servers[0]))
    return Target(_resolved(servers, address), hosts, (_ROUND_ROBIN, authority))


def _host_and_port(item: str, address: str) -> tuple[str, str]:
    host, _, port = item.strip().rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"{item!r} is not HOST:PORT", where=address, fix="HOST:PORT,HOST:PORT,...")
    return host, port


def _resolved(servers: Sequence[tuple[str, str]], address: str) -> str:
    """Returns gRPC's name for a list of servers. It may contain addresses of one family only, and no host names.

    Chooses the family (IPv4 or IPv6) that more of the servers have.
    """
    by_scheme = {scheme: [_lookup(*server, family) for server in servers] for scheme, family in _FAMILIES.items()}
    scheme, found = max(by_scheme.items(), key=lambda item: sum(map(bool, item[1])))
    if not any(found):
        raise Unavailable(
            "none of the hosts can be resolved", where=address, fix="host names that this machine can resolve"
        )
    for (host, port), addresses in zip(servers, found, strict=True):
        if not addresses:
            log.warning("%s:%s is not used: the name has no %s address", host, port, scheme)
    return f"{scheme}:{','.join(dict.fromkeys(chain.from_iterable(found)))}"


def _lookup(host: str, port: str, family: socket.AddressFamily) -> list[str]:
    """Returns the addresses of a host with its port; none if it has none of this family."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    hosts = [address[0] for *_, address in found]
    return [f"[{host}]:{port}" if family is socket.AF_INET6 else f"{host}:{port}" for host in hosts]
