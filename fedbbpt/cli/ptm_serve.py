"""`ptm serve`: a model behind the wall."""

import asyncio
import logging
import re
import time
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import err, log_to_stderr
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.ray import cluster
from fedbbpt.ptm.server import serve
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import IN_PROCESS
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import Precision, Runtime


class On(StrEnum):
    """What computes: a runtime in this process, or torch in the processes of a Ray cluster."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    RAY = "ray"


ptm = typer.Typer(no_args_is_help=True, help="The service that answers queries to a pre-trained model.")


@ptm.command("serve")
def ptm_serve(
    model: Annotated[
        str,
        typer.Option(
            help="all-MiniLM-L6-v2, fake, a local folder, a Hugging Face name, MODEL.onnx, "
            "or openai:MODEL@http://HOST:PORT/v1."
        ),
    ],
    family: Annotated[str, typer.Option(help="How to ask it; empty: as its checkpoint says.")] = "",
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the model; 0: all cores, or one for each replica on Ray.")
    ] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Of the model's layers; bfloat16 is faster and less exact.")
    ] = Precision.FLOAT32,
    device: Annotated[str, typer.Option(help="cpu, or what torch calls another one, such as cuda.")] = "cpu",
    engine: Annotated[
        On, typer.Option(help="What computes an encoder's layers; or ray: replicas of the model on a Ray cluster.")
    ] = On.TORCH,
    replicas: Annotated[
        str, typer.Option(metavar="N|MIN..MAX", help="Of the model, on Ray; as many as there is work for.")
    ] = "1",
    ray_address: Annotated[
        str, typer.Option(help="A Ray cluster that runs, such as ray://HOST:10001; empty: one of its own.")
    ] = "",
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="The key for an openai: server; else OPENAI_API_KEY of the environment.", show_default=False),
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(help="Who may ask, for how much, and what they are answered (TOML).")
    ] = None,
    audit: Annotated[
        Path | None,
        typer.Option(help="The audit log; with it, what tenants have used outlives this process.", show_default=False),
    ] = None,
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="For Prometheus, on --metrics-host; 0: no.")] = 0,
    metrics_host: Annotated[str, typer.Option(help="Where metrics are served.")] = "127.0.0.1",
    host: options.Host = "127.0.0.1",
    port: options.Port = 0,
    address_file: options.AddressFile = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_client_ca: options.TlsClientCa = None,
    token_file: options.Tokens = None,
    insecure: options.Insecure = False,
) -> None:
    """Answer queries to a model: label scores go out, weights and gradients never do.

    Example: fedbbpt ptm serve --model all-MiniLM-L6-v2 --port 7001
    """
    log_to_stderr(logging.INFO)
    tls, known = options.server_tls(tls_cert, tls_key, tls_client_ca), _tenants(tenants, token_file)
    if engine is On.RAY:
        if device != "cpu":
            raise InvalidInput(f"{device} for replicas on Ray", where="--device", fix="cpu, or --engine torch")
        if tls is not None:
            raise InvalidInput("Ray has no TLS", where="--tls-cert", fix="a TLS proxy on the same machine")
        if model.startswith("openai:"):
            fix = "--engine torch, and as many of the server as there is work for"
            raise InvalidInput("replicas of a model that is elsewhere", where="--engine ray", fix=fix)
        if ray_address and (audit or metrics_port or not port):
            what, fix = "they would be another machine's", "--port alone, or a cluster of the service's own"
            raise InvalidInput(what, where="--audit, --metrics-port and --port 0 with --ray-address", fix=fix)
        size = cluster.Size(*_bounds(replicas), threads or 1)
        with err.status(f"starting {model} on Ray"):
            on_ray = cluster.serve(
                partial(load, model, family=family, threads=size.threads, precision=precision),
                size,
                known,
                host,
                port,
                address=ray_address,
                insecure=insecure,
                audit=audit,
                metrics=(metrics_host, metrics_port) if metrics_port else None,
            )
        announce(f"PTM {on_ray.card.model}", host, on_ray.port, address_file)
        asyncio.run(until_done(on_ray.stop))
        return
    if ray_address or replicas != "1":
        raise InvalidInput("only Ray has them", where="--replicas, --ray-address", fix="--engine ray")
    with err.status(f"loading {model}"):
        key, runtime = options.read_token(api_key_file), Runtime(engine.value)
        backend = load(
            model, family=family, threads=threads, precision=precision, runtime=runtime, device=device, api_key=key
        )
    ptm_engine = Engine(backend, time.monotonic, tenants=known, audit_file=audit)

    async def run() -> None:
        serving = await serve(ptm_engine, host, port, tls=tls, tenants=known, insecure=insecure)
        stop_metrics = serving.service.metrics.serve(metrics_host, metrics_port) if metrics_port else lambda: None
        announce(f"PTM {ptm_engine.describe(tenant=IN_PROCESS).model}", host, serving.port, address_file)
        await until_done(serving.stop)
        stop_metrics()

    try:
        asyncio.run(run())
    finally:
        ptm_engine.close()


def _bounds(replicas: str) -> tuple[int, int]:
    """The fewest and the most."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})(?:\.\.([1-9][0-9]{0,3}))?", replicas)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most:
        raise InvalidInput(f"{replicas!r} is no number of replicas", where="--replicas", fix="for example 2, or 1..4")
    return fewest, most


def _tenants(file: Path | None, token_file: Path | None) -> Tenants:
    if file is not None and token_file is not None:
        raise InvalidInput("two ways to say who may ask", where="--tenants, --token-file", fix="one of them")
    if file is not None:
        return read_tenants(file)
    return Tenants.of_tokens(options.read_tokens(token_file)) if token_file else Tenants.anyone()
