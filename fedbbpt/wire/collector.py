"""HTTP to a collector of OpenTelemetry, which exporters of figures and of traces share."""

import logging
from typing import Any
from urllib.parse import urlsplit

from fedbbpt.wire.addresses import is_loopback

EXPORT_SECONDS = 10.0
"""How long one export may take, its retries included."""


def collector_session(url: str) -> Any:
    """Returns the `requests.Session` of an exporter to the collector at `url`.

    No proxy of the environment stands before loopback, as with every other connection of this project.
    """
    import requests  # the exporters' own dependency

    # They log each attempt, and whoever exports says once that the collector is away.
    logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
    session = requests.Session()
    session.trust_env = not is_loopback(urlsplit(url).hostname or "")
    return session
