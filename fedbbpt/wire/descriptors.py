"""The file descriptors of a service: connections get most of them, and the rest is kept back.

Without a limit, callers could take all of them, and the service could then open no file and accept no call. gRPC closes
a connection beyond the limit as soon as it has accepted it.
"""

import asyncio
import logging
import os
import socket
import sys

log = logging.getLogger(__name__)

KEPT_SHARE = 1 / 8
"""The share of the descriptors that no connection gets: for the store, logs, data and libraries."""
KEPT_AT_LEAST = 64
MOST = 65_536
"""The most descriptors that a service asks for. Some systems allow a billion, and some programs count up to it."""
NEARLY = 0.9
"""The share of the connections from which on the log warns."""
_WATCH_SECONDS = 10.0


def connection_limit(host: str) -> int | None:
    """Returns how many connections a server of this process may have on each address of `host`.

    First takes all descriptors that the process may have. None where the operating system has no such limit.
    """
    available = _take_descriptors()
    return None if available is None else max(1, _for_connections(available) // _addresses(host))


def _take_descriptors() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST if hard == resource.RLIM_INFINITY else min(hard, MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MOST if soft == resource.RLIM_INFINITY else min(soft, MOST)


def _for_connections(available: int) -> int:
    return available - min(max(KEPT_AT_LEAST, int(KEPT_SHARE * available)), available // 2)


def _addresses(host: str) -> int:
    """Returns how many addresses a server listens on: gRPC limits the connections of each by itself."""
    try:
        return max(1, len(set(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))))
    except OSError:
        return 1  # binding to the host will say what is wrong with it


def open_descriptors() -> int | None:
    """Returns how many descriptors this process has open; None if the operating system does not tell."""
    try:
        return len(os.listdir("/proc/self/fd")) - 1  # without the one that lists them
    except OSError:
        return None


async def watch_descriptors() -> None:
    """Warns when connections have taken nearly all descriptors that they may take. Runs until it is cancelled."""
    available = _take_descriptors()
    if available is None:
        return
    limit, warned = _for_connections(available), False
    while True:
        found = open_descriptors() or 0
        nearly = found >= NEARLY * limit
        if nearly and not warned:
            fix = "raise the limit of open files (ulimit -n), or find out who connects so often"
            log.warning("%d file descriptors are open, and at most %d connections are accepted: %s", found, limit, fix)
        warned = nearly
        await asyncio.sleep(_WATCH_SECONDS)
