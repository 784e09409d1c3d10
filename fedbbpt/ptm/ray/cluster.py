"""Starts and stops the service on Ray, on a cluster of its own or on a running one."""

import asyncio
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbbpt.host.audit import AuditLog
from fedbbpt.host.extras import needs_extra
from fedbbpt.interfaces import Backend
from fedbbpt.limits import MAX_MESSAGE_BYTES
from fedbbpt.ptm.ray.front import FrontOptions
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.types import ModelCard
from fedbbpt.wire.addresses import check_exposure, check_port_free, is_loopback

ENVIRONMENT = {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES)}
"""Environment of the service's processes, in any cluster."""
OWN_CLUSTER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_COLOR_PREFIX": "0",
    # Ray's own metrics, which nothing here reads, would take a tenth of a core.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "1",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_enable_metrics_collection": "0",
}
"""Environment of all Ray processes in a cluster of the service's own."""
QUEUED_BATCHES = 1
"""Micro-batches that wait at a replica, so that it is not idle while the next one is being sent."""


@dataclass(frozen=True, slots=True)
class Size:
    """Number of replicas, and the threads of each."""

    fewest: int = 1
    most: int = 1
    threads: int = 1

    @property
    def batches(self) -> int:
        """Number of micro-batches in flight that keep all replicas busy."""
        return self.most * (self.threads + QUEUED_BATCHES)


@dataclass(frozen=True, slots=True)
class RayServer:
    """A started service on Ray."""

    card: ModelCard
    port: int
    end: Callable[[], None]
    """Stops the service, and returns when it has stopped."""

    async def stop(self, grace_seconds: float) -> None:
        """Reports NOT_SERVING, lets open calls end, and stops; also stops the cluster if it is the service's own.

        Ray gives open calls `deployment.GRACE_SECONDS`, not `grace_seconds`.
        """
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
) -> RayServer:
    """Starts the service.

    Ray accepts calls at the port on all networks, on every machine with replicas. If `host` is loopback, the service
    refuses those from other machines.

    Args:
        load: Loads the model; called in every replica.
        size: How many replicas to run.
        tenants: The tenants that may call.
        host: Whether other machines may call; see above.
        port: 0 takes a free port; only in a cluster of the service's own.
        address: A running Ray cluster, on which Ray Serve does not run yet. Empty starts a cluster on this machine.
        insecure: Whether `host` may be reachable from other machines, as Ray has no TLS.
        audit: The audit log; only in a cluster of the service's own.
        metrics: Host and port of the metrics page; only in a cluster of the service's own.

    Raises:
        InsecureAddress: Other machines can reach `host`, without `insecure`.
        PortTaken: The port, or that of the metrics page, cannot be bound.
        PtmUnavailable: No cluster runs at `address`.
        Conflict: Ray Serve already runs on that cluster.
        InvalidInput: Ray is not installed.
        FedbbptError: What loading the model and opening the audit log raise.
    """
    fix = "a TLS proxy on this machine and 127.0.0.1, or --insecure"
    check_exposure(host, insecure=insecure, what="Ray has no TLS", fix=fix)
    if not address:
        port = port or _free_port()
        check_port_free("0.0.0.0", port)
        # Ray runs code for every client that reaches the cluster's ports and has its token, so the token is random.
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        os.environ |= ENVIRONMENT | OWN_CLUSTER_ENVIRONMENT | token
    with needs_extra("ray", where="--engine ray"):
        from fedbbpt.ptm.ray import deployment  # only now, because Ray reads its environment when it is imported
    if audit is not None:
        AuditLog(audit).close()  # so that errors are raised here, and not in the front
    if metrics is not None:
        check_port_free(*metrics)
    options = FrontOptions(tenants, size.batches, is_loopback(host), audit and audit.absolute(), metrics)
    if address:
        deployment.connect(address, ENVIRONMENT)
    else:
        deployment.start_cluster(size.most * size.threads)
    try:
        front = deployment.deploy(load, options, port, fewest=size.fewest, most=size.most, threads=size.threads)
        return RayServer(front.call("card"), port, lambda: deployment.stop(front))
    except BaseException:
        deployment.shut_down()
        raise


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("0.0.0.0", 0))
        port: int = attempt.getsockname()[1]
        return port
