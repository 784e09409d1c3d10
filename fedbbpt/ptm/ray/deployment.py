"""What is deployed on Ray Serve, and how. Only this file knows Ray, for which `cluster` prepares the ground."""

import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import cached_property
from io import StringIO
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, HTTPOptions, gRPCOptions
from ray.serve.exceptions import RayServeException

from fedbbpt.errors import Conflict, FedbbptError, PtmUnavailable
from fedbbpt.interfaces import Backend
from fedbbpt.ptm.ray.front import Front, Settings
from fedbbpt.ptm.ray.model import Model, Pairs
from fedbbpt.ptm.ray.scaling import QUEUED_TOKENS, QueuedTokens
from fedbbpt.wire.channel import MAX_CONCURRENT_CALLS

log = logging.getLogger(__name__)

NAME = "fedbbpt-ptm"
"""Of the application."""
SERVICERS = (
    "fedbbpt.ptm.v1.ptm_pb2_grpc.add_PtmServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
GRACE_SECONDS = 2.0
"""For what is under way where a replica ends; what it breaks off another one computes."""
UPSCALE_SECONDS, DOWNSCALE_SECONDS = 10.0, 120.0
"""For which more, or fewer, replicas have to be wanted."""
QUIET = {"log_level": "ERROR", "enable_access_log": False}
_GONE = (RayActorError, RayServeException)


class Deployed:
    """Implements backend.Replicas by a deployment's handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *arguments: Any) -> Any:
        """What a replica breaks off, one more is asked for."""
        try:
            return self._call(method, arguments)
        except _GONE as error:
            log.warning("a replica went away: %s", type(error).__name__)
        try:
            return self._call(method, arguments)
        except _GONE as error:
            log.warning("the next went away as well: %s", type(error).__name__)
            raise PtmUnavailable("the replicas that were asked went away", fix="try again") from None

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        found = self._handle.answer.remote(method, *arguments).result()
        if isinstance(found, FedbbptError):
            raise found
        return found

    def tell(self, method: str, seconds: float) -> None:
        """Waits for so long that it is heard, and does not mind where nobody is there."""
        with suppress(TimeoutError, RayError, *_GONE):
            self._handle.answer.remote(method).result(timeout_s=seconds)

    def ship(self, pairs: Pairs) -> Awaitable[Pairs]:
        shipped: Awaitable[Pairs] = ray.put(pairs)
        return shipped


class _Answering:
    """What `Deployed` talks to."""

    async def answer(self, method: str, *arguments: Any) -> Any:
        """What the method gives, or the error that it raises: of what is raised, Ray would log the trace each time."""
        try:
            return await getattr(self, method)(*arguments)
        except FedbbptError as error:
            return error


class DeployedFront(_Answering, Front):
    def __init__(self, model: Any, settings: Settings) -> None:
        _log_to_stderr()
        super().__init__(Deployed(model), settings)


class DeployedModel(_Answering, Model):
    def __init__(self, load: Callable[[], Backend[Any]]) -> None:
        _log_to_stderr()
        super().__init__(load)

    @cached_property
    def _front(self) -> Any:
        return serve.get_deployment_handle(Front.__name__, NAME)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Asked by Ray, of all replicas; only the front knows."""
        return {QUEUED_TOKENS: float(await self._front.queued_tokens.remote())}


def _log_to_stderr() -> None:
    """From where Ray brings it to whoever began the service."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def begin_cluster(cpus: int) -> None:
    """On this machine; it ends with this process."""
    ray.init("local", num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING)


def connect(address: str, environment: Mapping[str, str]) -> None:
    """To a cluster that runs. Raises PtmUnavailable, Conflict."""
    try:
        ray.init(address, runtime_env={"env_vars": dict(environment)}, logging_level=logging.WARNING)
    except (ConnectionError, RayError) as error:
        raise PtmUnavailable(f"no Ray cluster: {error}", where=address, fix="--ray-address of one that runs") from None
    if serve.status().proxies:
        ray.shutdown()
        what, fix = "Ray Serve runs there already, with proxies of its own", "a cluster without it: serve shutdown"
        raise Conflict(what, where=address, fix=fix)


def deploy(
    load: Callable[[], Backend[Any]], settings: Settings, port: int, *, fewest: int, most: int, threads: int
) -> Deployed:
    """The front, once it is there. From `fewest` to `most` replicas take `threads` CPUs each. Raises what loading the
    model raises, PtmUnavailable.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        # Ray's HTTP proxy cannot be left out; it finds nothing that it could call.
        http_options=HTTPOptions(host="127.0.0.1", port=0),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=list(SERVICERS)),
        logging_config=QUIET,
    )
    common = {
        "graceful_shutdown_timeout_s": GRACE_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "logging_config": QUIET,
    }
    model = serve.deployment(
        DeployedModel,
        name=Model.__name__,
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=settings.batches + 8,  # the front itself bounds how many come
        max_constructor_retry_count=1,
        **common,
        **({"num_replicas": most} if fewest == most else {"autoscaling_config": _scaling(fewest, most)}),
    )
    front = serve.deployment(
        DeployedFront,
        name=Front.__name__,
        ray_actor_options={"num_cpus": 0},
        max_ongoing_requests=MAX_CONCURRENT_CALLS,
        max_constructor_retry_count=1,
        **common,
    )
    try:
        return Deployed(serve.run(front.bind(model.bind(load), settings), name=NAME))
    except RuntimeError as error:
        # All that Ray has of the reason is a text: a model that cannot be loaded is tried once more, for the error.
        if (failure := ray.get(ray.remote(num_cpus=0)(_failure).remote(load))) is not None:
            raise failure from None
        raise PtmUnavailable("Ray could not begin the service", fix=str(error)) from None


def _failure(load: Callable[[], Backend[Any]]) -> FedbbptError | None:
    try:
        load()
    except FedbbptError as error:
        return error
    return None


def _scaling(fewest: int, most: int) -> AutoscalingConfig:
    return AutoscalingConfig(
        min_replicas=fewest,
        max_replicas=most,
        upscale_delay_s=UPSCALE_SECONDS,
        downscale_delay_s=DOWNSCALE_SECONDS,
        look_back_period_s=UPSCALE_SECONDS,
        metrics_interval_s=1.0,
        aggregation_function="max",
        policy=AutoscalingPolicy(policy_function=f"{QueuedTokens.__module__}:{QueuedTokens.__name__}"),
    )


def end(front: Deployed) -> None:
    front.tell("end", GRACE_SECONDS)
    shut_down()


def shut_down() -> None:
    # Ray prints of its own processes that they have ended before they were asked all that there was to ask.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        with suppress(RayError, *_GONE):
            serve.shutdown()
        ray.shutdown()
