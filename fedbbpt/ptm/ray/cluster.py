"""Ray itself, which no other file knows: a cluster of the service's own, or one that runs, and what is deployed there."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve as serving
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, gRPCOptions
from ray.serve.exceptions import RayServeException

from fedbbpt.errors import Conflict, FedbbptError, PtmUnavailable
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.ray.front import Front, Settings
from fedbbpt.ptm.ray.model import Model, Pairs
from fedbbpt.ptm.ray.scaling import QUEUED_TOKENS, QueuedTokens
from fedbbpt.types import ModelCard
from fedbbpt.wire.channel import MAX_CONCURRENT_CALLS, MAX_MESSAGE_BYTES, probe

log = logging.getLogger(__name__)

NAME = "fedbbpt-ptm"
"""Of the application in Ray Serve."""
SERVICERS = (
    "fedbbpt.ptm.v1.ptm_pb2_grpc.add_PtmServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
ENVIRONMENT = {"RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES)}
"""Of Ray's processes."""
AHEAD = 1
"""Micro-batches that a replica has waiting, so that it goes on while the next is on its way."""
GRACE_SECONDS = 2.0
"""For calls that are under way where a replica ends. What it breaks off is computed by another."""
UPSCALE_SECONDS, DOWNSCALE_SECONDS = 10.0, 120.0
"""For which more or fewer replicas have to be wanted."""


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


class ServedReplicas:
    """Implements backend.Replicas."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *arguments: Any) -> Any:
        try:
            return self._call(method, arguments)
        except (RayActorError, RayServeException) as error:
            log.warning("a replica went away, another is asked: %s", type(error).__name__)
        try:
            return self._call(method, arguments)
        except (RayActorError, RayServeException) as error:
            log.warning("that one went away as well: %s", type(error).__name__)
            raise PtmUnavailable("the replicas that were asked went away", fix="try again") from None

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        try:
            return getattr(self._handle, method).remote(*arguments).result()
        except RayTaskError as error:
            if isinstance(error.cause, FedbbptError):
                raise error.cause from None
            raise

    def ship(self, pairs: Pairs) -> Awaitable[Pairs]:
        shipped: Awaitable[Pairs] = ray.put(pairs)
        return shipped


class ServedFront(Front):
    def __init__(self, model: Any, settings: Settings) -> None:
        super().__init__(ServedReplicas(model), settings)


class ServedModel(Model):
    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks all replicas; only the front knows."""
        front = serving.get_deployment_handle(Front.__name__, NAME)
        return {QUEUED_TOKENS: float(await front.queued_tokens.remote())}


@dataclass(frozen=True, slots=True)
class OnRay:
    """A started service."""

    card: ModelCard
    port: int
    front: Any

    async def stop(self, grace_seconds: float) -> None:
        """Tells that it goes, lets open calls end, and ends, and the cluster with it if it is the service's own."""

        def end() -> None:
            with suppress(RayError, RayServeException):  # it may be gone already
                self.front.end.remote().result(timeout_s=grace_seconds)
            _shut_down()

        await asyncio.to_thread(end)


def serve(
    load: Callable[[], Backend[Any]], size: Size, settings: Settings, *, port: int = 0, address: str = ""
) -> OnRay:
    """A started service on a cluster of its own on this machine, or on the one at `address`, where no other application
    of Ray Serve may be.

    Every machine of the cluster that has replicas takes calls at the port. Raises PortTaken, PtmUnavailable where there
    is no cluster, Conflict where Ray Serve has been started there, and what loading the model and `Front` raise.
    """
    if address:
        _connect(address)
    else:
        port = port or _free_port()
        probe("0.0.0.0", port)
        _begin_cluster(size)
    try:
        if serving.status().proxies:
            what, fix = "Ray Serve runs there already, with proxies of its own", "a cluster without it: serve shutdown"
            raise Conflict(what, where=address, fix=fix)
        front = _deploy(load, size, settings, port)
        card: ModelCard = ServedReplicas(front).call("card")
        return OnRay(card, port, front)
    except BaseException:
        _shut_down()
        raise


def _begin_cluster(size: Size) -> None:
    os.environ |= ENVIRONMENT | {
        "RAY_USAGE_STATS_ENABLED": "0",
        # Whoever reaches the ports of a cluster can run code in it: only who has a token that nobody else knows.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }
    ray.init(
        "local",
        num_cpus=size.most * size.threads,
        include_dashboard=False,
        logging_level=logging.WARNING,
    )


def _connect(address: str) -> None:
    try:
        ray.init(address, runtime_env={"env_vars": ENVIRONMENT}, logging_level=logging.WARNING)
    except (ConnectionError, RayError) as error:
        raise PtmUnavailable(f"no Ray cluster: {error}", where=address, fix="--ray-address of one that runs") from None


def _deploy(load: Callable[[], Backend[Any]], size: Size, settings: Settings, port: int) -> Any:
    """The front's handle."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serving.start(
        http_options=HTTPOptions(host="127.0.0.1", port=0),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=list(SERVICERS)),
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    common = {"graceful_shutdown_timeout_s": GRACE_SECONDS, "graceful_shutdown_wait_loop_s": 0.1}
    model = serving.deployment(
        ServedModel,
        name=Model.__name__,
        **_number(size),
        **common,
        ray_actor_options={"num_cpus": size.threads},
        # The front bounds how many come.
        max_ongoing_requests=size.batches + 8,
    )
    front = serving.deployment(
        ServedFront,
        name=Front.__name__,
        **common,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_CONCURRENT_CALLS,
    )
    return serving.run(front.bind(model.bind(load), settings), name=NAME)


def _number(size: Size) -> dict[str, Any]:
    """Of replicas, as Ray Serve is told."""
    if size.fewest == size.most:
        return {"num_replicas": size.most}
    scaling = AutoscalingConfig(
        min_replicas=size.fewest,
        max_replicas=size.most,
        upscale_delay_s=UPSCALE_SECONDS,
        downscale_delay_s=DOWNSCALE_SECONDS,
        look_back_period_s=UPSCALE_SECONDS,
        metrics_interval_s=1.0,
        aggregation_function="max",
        policy=AutoscalingPolicy(policy_function=f"{QueuedTokens.__module__}:{QueuedTokens.__name__}"),
    )
    return {"autoscaling_config": scaling}


def _shut_down() -> None:
    with suppress(RayError, RayServeException):
        serving.shutdown()
    ray.shutdown()


def _free_port() -> int:
    with socket.socket() as attempt:
        attempt.bind(("0.0.0.0", 0))
        port: int = attempt.getsockname()[1]
        return port
