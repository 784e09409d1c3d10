"""Several servers of one service behind one channel: calls go round, and past a server that is down or not well.

A server's health is what it answers to grpc.health.v1 for itself as a whole; one that knows no such question is well.
"""

import json
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass

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
    """An address as gRPC takes it."""

    name: str
    hosts: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


def target(address: str, *, tls: bool) -> Target:
    """Of HOST:PORT, of several with commas between, or of dns:///NAME:PORT, a name that stands for several servers.

    Hosts of a list are looked up here, once. Raises InvalidInput where an item is no HOST:PORT, or where there is TLS
    and the hosts have different names, and Unavailable where no host is known.
    """
    if "," not in address:
        host = address.removeprefix(_DNS).rpartition(":")[0]
        return Target(address, (host,), (_ROUND_ROBIN,) if address.startswith(_DNS) else ())
    servers = [_host_and_port(item, address) for item in address.split(",")]
    hosts = tuple(dict.fromkeys(host for host, _ in servers))
    if tls and len(hosts) > 1:
        # A channel has one name, and every certificate is checked against it.
        fix = f"one name with several ports, or {_DNS}NAME:PORT with a name for all of them"
        raise InvalidInput(f"{len(hosts)} names of hosts behind TLS", where=address, fix=fix)
    # Without it the whole list would be the name.
    authority = ("grpc.default_authority", ":".join(servers[0]))
    return Target(_resolved(servers, address), hosts, (_ROUND_ROBIN, authority))


def _host_and_port(item: str, address: str) -> tuple[str, str]:
    host, _, port = item.strip().rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"{item!r} is no HOST:PORT", where=address, fix="HOST:PORT,HOST:PORT,...")
    return host, port


def _resolved(servers: Sequence[tuple[str, str]], address: str) -> str:
    """All servers' addresses, of the kind that more of them have: a list holds no names, and one kind only."""
    by_scheme = {scheme: [_places(*server, family) for server in servers] for scheme, family in _FAMILIES.items()}
    scheme, found = max(by_scheme.items(), key=lambda item: sum(map(bool, item[1])))
    if not any(found):
        raise Unavailable("no host of the list is known", where=address, fix="names that can be looked up from here")
    for (host, port), places in zip(servers, found, strict=True):
        if not places:
            log.warning("%s:%s is left out: there is no %s address of that name", host, port, scheme)
    return f"{scheme}:{','.join(dict.fromkeys(place for places in found for place in places))}"


def _places(host: str, port: str, family: socket.AddressFamily) -> list[str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [f"[{place[0]}]:{port}" if family is socket.AF_INET6 else f"{place[0]}:{port}" for *_, place in found]
