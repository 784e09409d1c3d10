"""Deploys the front and the replicas on Ray Serve. `cluster` imports this module, and Ray, late."""

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
from fedbbpt.limits import MAX_CONCURRENT_CALLS
from fedbbpt.ptm.ray.front import Front, FrontOptions
from fedbbpt.ptm.ray.replica import JobInputs, Replica
from fedbbpt.ptm.ray.scaling import QUEUED_TOKENS, QueuedTokens

log = logging.getLogger(__name__)

APPLICATION = "fedbbpt-ptm"
"""Name of the Ray Serve application."""
SERVICERS = (
    "fedbbpt.ptm.v1.ptm_pb2_grpc.add_PtmServiceServicer_to_server",
    "grpc_health.v1.health_pb2_grpc.add_HealthServicer_to_server",
)
GRACE_SECONDS = 2.0
"""Time for requests in flight when a replica stops. Unfinished ones go to another replica."""
UPSCALE_SECONDS, DOWNSCALE_SECONDS = 10.0, 120.0
"""Seconds for which the load must ask for more, or fewer, replicas before their number changes."""
QUIET = {"log_level": "ERROR", "enable_access_log": False}
"""Configuration of Ray Serve's own logs."""
_GONE = (RayActorError, RayServeException)
"""Errors of a call whose replica has died or was stopped."""


class Deployed:
    """Implements `backend.Replicas` with the handle of a deployment."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def call(self, method: str, *arguments: Any) -> Any:
        """Retries once if the replica goes away."""
        try:
            return self._call(method, arguments)
        except _GONE as error:
            log.warning("a replica went away: %s", type(error).__name__)
        try:
            return self._call(method, arguments)
        except _GONE as error:
            log.warning("a second replica went away: %s", type(error).__name__)
            raise PtmUnavailable("two replicas in a row went away", fix="try again") from None

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Any:
        found = self._handle.answer.remote(method, *arguments).result()
        if isinstance(found, FedbbptError):
            raise found
        return found

    def tell(self, method: str, seconds: float) -> None:
        """Calls a method, waits at most `seconds` for it, and ignores every failure."""
        with suppress(TimeoutError, RayError, *_GONE):
            self._handle.answer.remote(method).result(timeout_s=seconds)

    def share(self, inputs: JobInputs) -> Awaitable[JobInputs]:
        """Puts a job's inputs in Ray's object store once, for all replicas."""
        shared: Awaitable[JobInputs] = ray.put(inputs)
        return shared


class _Answering:
    """The deployment's side of `Deployed`."""

    async def answer(self, method: str, *arguments: Any) -> Any:
        """Returns the method's result, or its FedbbptError, because Ray would log the traceback of a raised one."""
        try:
            return await getattr(self, method)(*arguments)
        except FedbbptError as error:
            return error


class DeployedFront(_Answering, Front):
    """The front as Ray Serve runs it. `replicas` is the handle of the other deployment."""

    def __init__(self, replicas: Any, options: FrontOptions) -> None:
        _log_to_stderr()
        super().__init__(Deployed(replicas), options)


class DeployedReplica(_Answering, Replica):
    """A replica as Ray Serve runs it."""

    def __init__(self, load: Callable[[], Backend[Any]]) -> None:
        _log_to_stderr()
        super().__init__(load)

    @cached_property
    def _front(self) -> Any:
        return serve.get_deployment_handle(Front.__name__, APPLICATION)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Called by Ray on every replica. Asks the front, which has the queue."""
        return {QUEUED_TOKENS: float(await self._front.queued_tokens.remote())}


def _log_to_stderr() -> None:
    """Ray forwards stderr to the process that started the service."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")


def start_cluster(cpus: int) -> None:
    """Starts a Ray cluster on this machine, which ends with this process."""
    ray.init("local", num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING)


def connect(address: str, environment: Mapping[str, str]) -> None:
    """Connects to a running cluster. Raises PtmUnavailable if there is none, Conflict if Ray Serve runs on it."""
    try:
        ray.init(address, runtime_env={"env_vars": dict(environment)}, logging_level=logging.WARNING)
    except (ConnectionError, RayError) as error:
        raise PtmUnavailable(
            f"no Ray cluster: {error}", where=address, fix="--ray-address of a running cluster"
        ) from None
    if serve.status().proxies:
        ray.shutdown()
        what, fix = "Ray Serve already runs on the cluster", "a cluster without it (`serve shutdown` ends it)"
        raise Conflict(what, where=address, fix=fix)


def deploy(
    load: Callable[[], Backend[Any]], options: FrontOptions, port: int, *, fewest: int, most: int, threads: int
) -> Deployed:
    """Deploys front and replicas, waits until they run, and returns the front.

    Args:
        load: Loads the model; called in every replica.
        options: The options of the front.
        port: The port of Ray Serve's gRPC proxies.
        fewest: Lowest number of replicas.
        most: Highest number of replicas.
        threads: CPUs of each replica.

    Raises:
        PtmUnavailable: Ray cannot start the service.
        FedbbptError: What loading the model raises.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        # Ray's HTTP proxy cannot be turned off, but has no route to anything.
        http_options=HTTPOptions(host="127.0.0.1", port=0),
        grpc_options=gRPCOptions(port=port, grpc_servicer_functions=list(SERVICERS)),
        logging_config=QUIET,
    )
    common = {
        "graceful_shutdown_timeout_s": GRACE_SECONDS,
        "graceful_shutdown_wait_loop_s": 0.1,
        "logging_config": QUIET,
    }
    replicas = serve.deployment(
        DeployedReplica,
        name=Replica.__name__,
        ray_actor_options={"num_cpus": threads},
        max_ongoing_requests=options.batches + 8,  # never reached: the front limits the calls in flight
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
        return Deployed(serve.run(front.bind(replicas.bind(load), options), name=APPLICATION))
    except RuntimeError as error:
        # Ray keeps only the text of the reason. Loading the model once more tells whether that is what failed.
        if (failure := ray.get(ray.remote(num_cpus=0)(_failure).remote(load))) is not None:
            raise failure from None
        raise PtmUnavailable("Ray could not start the service", fix=str(error)) from None


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


def stop(front: Deployed) -> None:
    """Stops the service, and the cluster if it is the service's own."""
    front.tell("stop", GRACE_SECONDS)
    shut_down()


def shut_down() -> None:
    """Ends Ray Serve, and disconnects from the cluster or ends the service's own."""
    # Ray would print messages about its own processes as they end.
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        with suppress(RayError, *_GONE):
            serve.shutdown()
        ray.shutdown()
