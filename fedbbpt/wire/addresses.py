"""Network addresses: how they are written, whether they name this machine, and whether a port is free."""

import contextlib
import errno
import ipaddress
import logging
import re
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from fedbbpt.errors import InsecureAddress, InvalidInput, PortTaken

log = logging.getLogger(__name__)

DNS = "dns:///"
"""Prefix of a name that has the addresses of several servers."""
UNIX = "unix:"
"""Prefix of the path of a Unix domain socket."""
LOCALHOST = "127.0.0.1"
MAX_PORT = 65535
_MAX_SOCKET_PATH = 107
"""Bytes of a socket's path on Linux."""
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""One part of a host name. DNS has no underscore, but the names of containers do."""
_MAX_HOST = 253
"""Characters of a host name."""
_EXAMPLE = "hub.example.org:7000"


@dataclass(frozen=True, slots=True)
class Server:
    """One server's host, without brackets, and its port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Returns HOST:PORT; an IPv6 address is in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def on_this_machine(self) -> bool:
        """Whether a connection to this server stays on this machine: 0.0.0.0 and :: also lead to loopback.

        No name is looked up: see `proxies.bypasses_proxy`.
        """
        return is_loopback(self.host) or self.host in ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Address:
    """The address of a service, as `parse_address` reads it."""

    text: str
    """The address as it was written, without white space around it."""
    servers: tuple[Server, ...]
    """The servers: several if they share the work, none for a Unix domain socket."""
    by_dns: bool = False
    """Whether the only server's host is a name that has the addresses of several servers."""


def parse_address(text: str, where: str = "address", *, several: bool = True) -> Address:
    """Returns the address of a service, without looking up any name.

    Args:
        text: HOST:PORT, several of them separated by commas, dns:///NAME:PORT for a name that has the addresses of
            several servers, or unix:/PATH.
        where: The option or key that holds the address, for messages.
        several: Whether a list may stand there.

    Raises:
        InvalidInput: The text is none of these.
    """
    text = text.strip()
    if not text:
        raise InvalidInput("no address is given", where=where, fix=f"HOST:PORT, such as {_EXAMPLE}")
    if text.startswith(UNIX):
        path = text.removeprefix(UNIX)
        if not path.startswith("/") or len(path.encode()) > _MAX_SOCKET_PATH:
            fix = f"{UNIX}/PATH of at most {_MAX_SOCKET_PATH} bytes"
            raise InvalidInput(f"{text!r} is not the absolute path of a socket", where=where, fix=fix)
        return Address(text, ())
    if text.startswith(DNS):
        return Address(text, (_server(text.removeprefix(DNS), where, DNS),), by_dns=True)
    items = text.split(",")
    if len(items) > 1 and not several:
        raise InvalidInput(f"{text!r} is a list, but only one address can stand here", where=where, fix="HOST:PORT")
    if not all(item.strip() for item in items):
        raise InvalidInput(f"{text!r} has an empty item", where=where, fix="HOST:PORT,HOST:PORT,...")
    return Address(text, tuple(_server(item.strip(), where) for item in items))


def _server(text: str, where: str, prefix: str = "") -> Server:
    """Returns the server that HOST:PORT names. Raises InvalidInput."""
    host, port = _split(text, where, prefix)
    if not (re.fullmatch("[0-9]{1,5}", port) and 1 <= int(port) <= MAX_PORT):
        what = f"{port!r} in {prefix + text!r} is not a port from 1 to {MAX_PORT}"
        raise InvalidInput(what, where=where, fix=f"HOST:PORT, such as {prefix}{host}:7000")
    found = check_host(host, where)
    return Server(found, int(port))


def _split(text: str, where: str, prefix: str) -> tuple[str, str]:
    """Returns host and port as they are written, the host still in its brackets. Raises InvalidInput."""
    written = repr(prefix + text)
    host, _, port = text.rpartition(":")
    if "@" in text:
        # What stands before it may be a password, so it is not repeated.
        what, right = "the address has a user in front of the host", "HOST:PORT alone"
    elif "/" in text:
        url = urlsplit(text if "://" in text else f"//{text}")
        what = f"{written} is a URL, not HOST:PORT" if url.scheme else f"{written} has a path after HOST:PORT"
        right = url.netloc if re.search(":[0-9]+$", url.netloc) else f"{url.netloc or 'HOST'}:PORT"
    elif text.count(":") > 1 and not text.startswith("["):
        ipv6 = next((f"[{known}]:{rest}" for known, rest in ((host, port), (text, "PORT")) if _is_ipv6(known)), "")
        what = f"{written} is an IPv6 address without brackets" if ipv6 else f"{written} has several colons"
        right = ipv6 or "HOST:PORT"
    elif ":" not in text or text.endswith("]"):
        what, right = f"{written} has no port", f"{text}:PORT"
    elif not host:
        what, right = f"{written} has no host", f"{LOCALHOST}:{port} for this machine"
    else:
        return host, port
    raise InvalidInput(what, where=where, fix=prefix + right)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def check_host(text: str, where: str) -> str:
    """Returns a host name or IP address, without brackets. Looks up nothing.

    Raises:
        InvalidInput: The text cannot be either of them.
    """
    if text.count(":") == 1:
        raise InvalidInput(f"{text!r} has a port or a scheme", where=where, fix=f"the host alone, such as {LOCALHOST}")
    if text.startswith("[") or ":" in text:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        if not _is_ipv6(bare):
            raise InvalidInput(f"{text!r} is not an IPv6 address", where=where, fix="an address such as 2001:db8::1")
        return bare
    labels = text.removesuffix(".").split(".")
    if re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]*", labels[-1]):
        # Resolvers read 127.1 and 2130706433 as addresses, too, but nobody else does.
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            fix = "four numbers from 0 to 255, such as 127.0.0.1"
            raise InvalidInput(f"{text!r} is not an IPv4 address", where=where, fix=fix) from None
        return text
    if not text.isascii():
        fix = "the name in ASCII"
        with contextlib.suppress(UnicodeError):
            fix += f": {text.encode('idna').decode()}"
        raise InvalidInput(f"{text!r} is not a host name in ASCII", where=where, fix=fix)
    if len(text) > _MAX_HOST or not all(map(_LABEL.fullmatch, labels)):
        fix = "letters, digits, hyphens and dots, such as hub.example.org"
        raise InvalidInput(f"{text!r} is not a host name", where=where, fix=fix)
    return text


def is_loopback(host: str) -> bool:
    """Returns whether `host` is "localhost" or a loopback address. IPv6 may be in brackets; no name is looked up."""
    host = host.strip("[]")
    if host.lower().removesuffix(".") == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


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
    """Checks that a server can listen, because gRPC's own error does not give the operating system's reason.

    Raises:
        InvalidInput: The host is unknown, or not an address of this machine.
        PortTaken: The port cannot be bound. Port 0 is always free.
    """
    here = f"an address of this machine: {LOCALHOST}, or 0.0.0.0 for all its networks"
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InvalidInput(f"the host cannot be resolved: {error.strerror}", where=host, fix=here) from None
    with socket.socket(family, kind) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise InvalidInput("this machine does not have this address", where=host, fix=here) from None
            fix = "another port, or 0 for any free one"
            raise PortTaken(error.strerror or str(error), where=f"{host}:{port}", fix=fix) from None
