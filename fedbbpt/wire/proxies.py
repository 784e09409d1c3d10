"""The HTTP proxy between this machine and a server, by the rules with which gRPC's C core reads the environment.

The rules differ from those of other programs: only lower-case variables count, `no_proxy` has no wildcards, and a proxy
whose URL does not begin with http:// is ignored.
"""

import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

_PROXY_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The first one that is set counts, even if it is empty."""
_EXCEPTION_VARIABLES = ("no_grpc_proxy", "no_proxy")


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
    """Returns whether an entry of `no_proxy` covers a host: the host itself, a domain above it, or a network."""
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        entry, host = entry.lower().lstrip("."), host.lower()
        return host == entry or host.endswith(f".{entry}")
