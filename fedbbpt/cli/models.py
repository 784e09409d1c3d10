"""The PTM that a command asks: a running service, or a model loaded into this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from fedbbpt.errors import PtmUnavailable
from fedbbpt.interfaces import Ptm
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.local import LocalPtm
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.remote import RemotePtm
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.types import Precision
from fedbbpt.wire.channel import PTM_KEEPALIVE_SECONDS, connect
from fedbbpt.wire.tls import ClientTls


@contextmanager
def open_ptm(
    address: str,
    model: str,
    *,
    revision: str = "",
    threads: int = 0,
    precision: Precision = Precision.FLOAT32,
    tls: ClientTls | None = None,
    token: str = "",
    patience_seconds: float = 60.0,
) -> Iterator[Ptm]:
    """The service at `address`; where that is empty, `model` in this process."""
    if not address:
        yield LocalPtm(Engine(load(model, threads=threads, precision=precision), time.monotonic), IN_PROCESS)
        return
    with connect(address, tls, token, keepalive_seconds=PTM_KEEPALIVE_SECONDS) as channel:
        try:
            box = RemotePtm(channel, revision, patience_seconds=patience_seconds)
        except PtmUnavailable as error:
            fix = "the address that `fedbbpt ptm serve` printed"
            raise PtmUnavailable(f"nobody answers ({error.what})", where=address, fix=fix) from None
        yield box
