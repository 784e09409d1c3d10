"""The HTTP proxy between this machine and a server, by the rules with which gRPC's C core reads the environment.

The rules differ from those of other programs: only lower-case variables count, `no_proxy` has no wildcards, and a proxy
whose URL does not begin with http:// is ignored. What differs from gRPC is that no proxy stands before loopback.
"""

import ipaddress
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from fedbbpt.wire.addresses import Server

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The first one that is set counts, even if it is empty."""
_EXCEPTION_VARIABLES = ("no_grpc_proxy", "no_proxy")


def bypasses_proxy(server: Server) -> bool:
    """Returns whether a connection to `server` stays on this machine, so that no proxy may stand before it.

    A name is looked up only if the environment names a proxy for it. One that cannot be resolved does not bypass it,
    because the proxy may know it.
    """
    return server.on_this_machine or (bool(proxy_variable(server.host)) and resolves_to_this_machine(server))


def proxy_before(server: Server) -> str:
    """Returns the environment variable that names the proxy before `server`; "" if it is reached directly."""
    return "" if bypasses_proxy(server) else proxy_variable(server.host)


def resolves_to_this_machine(server: Server) -> bool:
    """Returns whether all addresses of a host lead to loopback, as those of this machine's own name may."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(Server(str(address[0]), server.port).on_this_machine for *_, address in found)


def proxy_variable(host: str, environment: Mapping[str, str] = os.environ) -> str:
    """Returns the environment variable that names the proxy for `host`, a name or an address; "" without a proxy."""
    variable = next((name for name in _PROXY_VARIABLES if name in environment), "")
    url = urlsplit(environment.get(variable, ""))
    if url.scheme != "http" or not url.netloc:
        return ""
    exceptions = next((environment[name] for name in _EXCEPTION_VARIABLES if name in environment), "")
    excepted = any(_covers(entry.strip(), host) for entry in exceptions.split(",") if entry.strip())
    return "" if excepted else variable


def _covers(entry: str, host: str) -> bool:
    """Returns whether an entry of `no_proxy` covers a host: the end of its name, or a network.

    gRPC compares ends without regard to dots, so that `host` covers `localhost`.
    """
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return host.lower().endswith(entry.lower())
