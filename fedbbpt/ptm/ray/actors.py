"""Objects in processes of a Ray cluster, without Ray Serve. Imports Ray; others import this module late."""

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError

from fedbbpt.errors import FedbbptError, PtmUnavailable


class _Holder:
    """The actor's side: the object, or why it could not be made. Ray would wrap an error in one of its own."""

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._made = make(*arguments)
        except FedbbptError as error:
            self._made = error

    def call(self, method: str, *arguments: Any) -> Any:
        if isinstance(self._made, FedbbptError):
            return self._made
        try:
            return getattr(self._made, method)(*arguments)
        except FedbbptError as error:
            return error


class Actor:
    """An object in another process."""

    def __init__(self, handle: Any, gone: Callable[[], FedbbptError]) -> None:
        """`gone` makes the error of a call whose process has ended."""
        self._handle, self._gone = handle, gone

    def call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        """Starts a call of a method. Returns a function that waits for its result, or raises its error."""
        reference = self._handle.call.remote(method, *arguments)

        def result() -> Any:
            try:
                found = ray.get(reference)
            except RayActorError:
                raise self._gone() from None
            if isinstance(found, FedbbptError):
                raise found
            return found

        return result


class Cluster:
    """A running cluster, or one of this process's own, which ends with `close`."""

    def __init__(self, address: str, cpus: int) -> None:
        """
        Args:
            address: A running cluster; empty starts one on this machine.
            cpus: The CPUs of a cluster that is started.

        Raises:
            PtmUnavailable: No cluster runs at the address.
        """
        if not address:
            ray.init("local", num_cpus=cpus, include_dashboard=False, logging_level=logging.WARNING)
            return
        try:
            ray.init(address, logging_level=logging.WARNING)
        except (ConnectionError, RayError) as error:
            fix = "--ray-address of a running cluster"
            raise PtmUnavailable(f"no Ray cluster: {error}", where=address, fix=fix) from None

    def start(self, make: Callable[..., Any], shared: Any, *arguments: Any, gone: Callable[[], FedbbptError]) -> Actor:
        """Starts a process with the object that `make` makes of the arguments; it takes one CPU.

        Args:
            make: Makes the object, in the process.
            shared: The first argument, which is sent once for all processes that get the same one.
            arguments: Further arguments.
            gone: Makes the error of a call whose process has ended.
        """
        actor = ray.remote(num_cpus=1)(_Holder)
        return Actor(actor.remote(make, self._put(shared), *arguments), gone)

    def _put(self, shared: Any) -> Any:
        if getattr(self, "_shared", None) is not shared:
            self._shared, self._reference = shared, ray.put(shared)
        return self._reference

    def close(self) -> None:
        """Ends the processes, and the cluster if this process started it."""
        ray.shutdown()
