"""Several servers of one service on one channel: calls are distributed round robin over the healthy ones.

A server is healthy if it reports SERVING for the empty service name of grpc.health.v1, or does not have that service.
"""

import json
import logging
import socket
from dataclasses import dataclass
from itertools import chain

from fedbbpt.errors import InvalidInput, Unavailable
from fedbbpt.wire.addresses import DNS, Address, Server
from fedbbpt.wire.proxies import bypasses_proxy, proxy_before

log = logging.getLogger(__name__)

_FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
_ROUND_ROBIN = (
    "grpc.service_config",
    json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}),
)

_NO_PROXY = (("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", ""))
"""A proxy could not reach this machine's loopback, and would read what is sent there without encryption."""


@dataclass(frozen=True, slots=True)
class Target:
    """An address in the form that gRPC needs."""

    name: str
    """The name to open the channel with."""
    options: tuple[tuple[str, str | int], ...] = ()
    """Channel options that this address needs."""


def target(address: Address, *, tls: bool) -> Target:
    """Returns the target of an address. The hosts of a list are resolved here, once.

    A single host is looked up only to find out whether it is this machine's loopback, and only if there is a proxy.

    Args:
        address: One server, several, or a name that has the addresses of several.
        tls: Whether the channel uses TLS.

    Raises:
        InvalidInput: The hosts of a list differ although `tls` is true, or a proxy stands before one of them.
        Unavailable: None of the hosts of a list can be resolved.
    """
    direct = _NO_PROXY if all(map(bypasses_proxy, address.servers)) else ()
    if len(address.servers) < 2:
        return Target(address.text, (*direct, *((_ROUND_ROBIN,) if address.by_dns else ())))
    hosts = tuple(dict.fromkeys(server.host for server in address.servers))
    if tls and len(hosts) > 1:
        # A channel has one name, and checks the certificates of all servers against it.
        fix = f"one name with several ports, or {DNS}NAME:PORT with a name for all of them"
        raise InvalidInput(f"{len(hosts)} different host names with TLS", where=address.text, fix=fix)
    for server in address.servers:
        # gRPC would ask the proxy for one tunnel to the whole list.
        variable = proxy_before(server)
        if variable:
            what = f"a list of servers cannot be reached through a proxy, but {variable} names one for {server.host}"
            raise InvalidInput(what, where=address.text, fix="their hosts in no_proxy, or a single HOST:PORT")
    # Without this option, gRPC would use the whole list as the authority.
    authority = ("grpc.default_authority", str(address.servers[0]))
    return Target(_resolved(address), (*_NO_PROXY, _ROUND_ROBIN, authority))


def _resolved(address: Address) -> str:
    """Returns gRPC's name for a list of servers. It may contain addresses of one family only, and no host names.

    Chooses the family (IPv4 or IPv6) that more of the servers have.
    """
    servers = address.servers
    by_scheme = {scheme: [_lookup(server, family) for server in servers] for scheme, family in _FAMILIES.items()}
    scheme, found = max(by_scheme.items(), key=lambda item: sum(map(bool, item[1])))
    if not any(found):
        fix = "host names that this machine can resolve"
        raise Unavailable("none of the hosts can be resolved", where=address.text, fix=fix)
    for server, addresses in zip(servers, found, strict=True):
        if not addresses:
            log.warning("%s is not used: the name has no %s address", server, scheme)
    return f"{scheme}:{','.join(dict.fromkeys(chain.from_iterable(found)))}"


def _lookup(server: Server, family: socket.AddressFamily) -> list[str]:
    """Returns the addresses of a host with its port; none if it has none of this family."""
    try:
        found = socket.getaddrinfo(server.host, server.port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(Server(str(address[0]), server.port)) for *_, address in found]
