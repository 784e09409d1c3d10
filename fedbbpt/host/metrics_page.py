"""The page that Prometheus reads a service's metrics from."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from fedbbpt.errors import PortTaken

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


def serve_metrics(registry: "CollectorRegistry", host: str, port: int) -> Callable[[], None]:
    """Serves http://host:port/metrics from a thread and returns a function that stops it. Raises PortTaken."""
    from prometheus_client import start_http_server  # takes longer to import than most services that have no page

    try:
        server, _ = start_http_server(port, host, registry)
    except OSError as error:
        what = error.strerror or str(error)
        raise PortTaken(what, where=f"{host}:{port}", fix="another --metrics-port") from None

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop
