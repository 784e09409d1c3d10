"""`ptm serve`: a model behind the wall."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli import options
from fedbbpt.cli.console import err, log_to_stderr
from fedbbpt.cli.lifetime import announce, until_done
from fedbbpt.errors import InvalidInput
from fedbbpt.ptm.backends import load
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.service import serve
from fedbbpt.ptm.tenants import Tenants
from fedbbpt.types import Precision, Runtime

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
    threads: Annotated[int, typer.Option(min=0, help="Threads of the model; 0: all cores.")] = 0,
    precision: Annotated[
        Precision, typer.Option(help="Of the model's layers; bfloat16 is faster and less exact.")
    ] = Precision.FLOAT32,
    runtime: Annotated[Runtime, typer.Option("--engine", help="What computes an encoder's layers.")] = Runtime.TORCH,
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
    with err.status(f"loading {model}"):
        key = options.read_token(api_key_file)
        backend = load(model, family=family, threads=threads, precision=precision, runtime=runtime, api_key=key)
    engine = Engine(backend, time.monotonic, tenants=known, audit_file=audit)

    async def run() -> None:
        serving = await serve(engine, host, port, tls=tls, tenants=known, insecure=insecure)
        stop_metrics = serving.service.metrics.serve(metrics_host, metrics_port) if metrics_port else lambda: None
        announce(f"PTM {engine.describe().model}", host, serving.port, address_file)
        await until_done(serving.stop)
        stop_metrics()

    try:
        asyncio.run(run())
    finally:
        engine.close()


def _tenants(file: Path | None, token_file: Path | None) -> Tenants:
    if file is not None and token_file is not None:
        raise InvalidInput("two ways to say who may ask", where="--tenants, --token-file", fix="one of them")
    if file is not None:
        return Tenants.read(file)
    return Tenants.of_tokens(options.read_tokens(token_file)) if token_file else Tenants.anyone()
