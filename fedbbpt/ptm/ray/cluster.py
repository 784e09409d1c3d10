"""The service on Ray, from its beginning to its end: on a cluster of its own, or on one that runs."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.errors import InsecureAddress, InvalidInput
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.ray.front import Settings
from fedbbpt.ptm.tenants.audit import AuditLog
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.types import ModelCard
from fedbbpt.wire.addresses import check_port_free, is_loopback
from fedbbpt.wire.channel import MAX_MESSAGE_BYTES

log = logging.getLogger(__name__)

ENVIRONMENT = {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES)}
"""Of Ray's processes, in any cluster."""
OWN = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    # What Ray keeps count of, and nobody here looks at, takes a tenth of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
}
"""And in one of the service's own."""
AHEAD = 1
"""Micro-batches that a replica has waiting, so that it goes on while the next is on its way."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many replicas, and with how many threads each."""

    fewest: int = 1
    most: int = 1
    threads: int = 1

    @property
    def batches(self) -> int:
        """Micro-batches that keep all of them busy."""
        return self.most * (self.threads + AHEAD)


@dataclass(frozen=True, slots=True)
class Serving:
    """A started service."""

    card: ModelCard
    port: int
    end: Callable[[], None]

    async def stop(self, grace_seconds: float) -> None:
        """Tells that it goes, lets open calls end, and ends; the cluster as well, if it is its own."""
        await asyncio.to_thread(self.end)


def serve(
    load: Callable[[], Backend[Any]],
    size: Size,
    tenants: Tenants,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    address: str = "",
    insecure: bool = False,
    audit: Path | None = None,
    metrics: tuple[str, int] | None = None,
) -> Serving:
    """A started service on a cluster of its own on this machine, or on the one at `address`, where Ray Serve may not
    run yet.

    Ray takes calls at the port on all networks, at every machine with replicas; where `host` is loopback, the service
    refuses those that come from another machine. `audit` and `metrics` (host and port) are of a cluster of its own.
    Raises InsecureAddress, PortTaken, PtmUnavailable where there is no cluster, Conflict where Ray Serve runs there,
    and what loading the model, `AuditLog` and `PtmMetrics.serve` raise.
    """
    if not is_loopback(host):
        if not insecure:
            fix = "a TLS proxy on this machine and 127.0.0.1, or --insecure"
            raise InsecureAddress("Ray has no TLS: anybody on the network could read and join", where=host, fix=fix)
        log.warning("INSECURE: %s is reachable without TLS; anybody on its network can read and join", host)
    if not address:
        port = port or _free_port()
        check_port_free("0.0.0.0", port)
        # Whoever reaches a cluster's ports can run code in it, unless he lacks its token. This one nobody knows.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= ENVIRONMENT | OWN | token
    try:
        from fedbbpt.ptm.ray import deployment  # Ray reads its environment when it is imported
    except ModuleNotFoundError as error:
        fix = "pip install 'fedbbpt[ray]'"
        raise InvalidInput(f"{error.name} is not installed", where="--engine ray", fix=fix) from None
    if audit is not None:
        AuditLog(audit).close()  # what is wrong with it is said here, and not by the front to nobody
    if metrics is not None:
        check_port_free(*metrics)
    settings = Settings(tenants, size.batches, is_loopback(host), audit and audit.absolute(), metrics)
    if address:
        deployment.connect(address, ENVIRONMENT)
    else:
        deployment.begin_cluster(size.most * size.threads)
    try:
        front = deployment.deploy(load, settings, port, fewest=size.fewest, most=size.most, threads=size.threads)
        return Serving(front.call("card"), port, lambda: deployment.end(front))
    except BaseException:
        deployment.shut_down()
        raise


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("0.0.0.0", 0))
        port: int = attempt.getsockname()[1]
        return port
