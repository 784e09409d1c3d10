"""The command `ptm serve`: offers a model as a PTM service."""

import asyncio
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from fedbbpt.cli.terminal.bundles import Listening, MetricsPage, with_bundles
from fedbbpt.cli.terminal.logs import Logging
from fedbbpt.cli.terminal.model_options import ModelOptions
from fedbbpt.cli.terminal.options import SECURITY, read_token
from fedbbpt.cli.terminal.reloading import Reloading, on_loop
from fedbbpt.cli.terminal.serving import announce, until_done
from fedbbpt.errors import InvalidInput
from fedbbpt.host.progress import progress
from fedbbpt.limits import MAX_BUDGET
from fedbbpt.ptm.engine import Engine
from fedbbpt.ptm.models.loading import load
from fedbbpt.ptm.ray import cluster
from fedbbpt.ptm.server import serve
from fedbbpt.ptm.tenants.registry import Tenants
from fedbbpt.ptm.tenants.tenant import ANYONE
from fedbbpt.ptm.tenants.tenants_file import read_tenants
from fedbbpt.types import PrecisionChoice, Runtime
from fedbbpt.wire import tracing
from fedbbpt.wire.addresses import parse_address


class Compute(StrEnum):
    """What computes the model: a runtime in this process, or torch in the processes of a Ray cluster."""

    TORCH = "torch"
    ONNXRUNTIME = "onnxruntime"
    OPENVINO = "openvino"
    RAY = "ray"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The model to serve, and what computes it."""

    model: Annotated[
        str,
        typer.Option(
            help="The model: all-MiniLM-L6-v2, fake, a local folder, a Hugging Face name, MODEL.gguf, MODEL.onnx, "
            "openai:MODEL@http://HOST:PORT/v1, or openai-chat: in place of openai: for its chat completions."
        ),
    ]
    threads: Annotated[
        int, typer.Option(min=0, help="Threads of the model; 0 means all cores, or one per replica on Ray.")
    ] = 0
    engine: Annotated[
        Compute,
        typer.Option(help="The runtime of an encoder's layers; ray means replicas of the model on a Ray cluster."),
    ] = Compute.TORCH
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            help="The file with the key for an openai: or openai-chat: server. "
            "By default the variable OPENAI_API_KEY holds the key, for the server at OPENAI_BASE_URL.",
            show_default=False,
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class RayOptions:
    """How many replicas of the model run on which Ray cluster."""

    replicas: Annotated[
        str,
        typer.Option(metavar="N|MIN..MAX", help="The number of replicas on Ray. With MIN..MAX it follows the load."),
    ] = "1"
    ray_address: Annotated[
        str,
        typer.Option(help="The running Ray cluster, such as ray://HOST:10001. By default the command starts one."),
    ] = ""


@dataclass(frozen=True, slots=True)
class ProviderOptions:
    """The tenants of the service, and the records kept of them."""

    tenants: Annotated[
        Path | None, typer.Option(help="The file that lists tenants, their budgets and outputs (TOML).")
    ] = None
    tls_crl: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The list of revoked certificates of the authority at --tls-client-ca (PEM).",
            rich_help_panel=SECURITY,
            show_default=False,
        ),
    ] = None
    label_tokens: Annotated[
        str,
        typer.Option(
            metavar="N|all",
            help="The number of different label tokens of each tenant, without --tenants. "
            "By default it is fewer than a quarter of the model's hidden size.",
            show_default=False,
        ),
    ] = ""
    audit: Annotated[
        Path | None,
        typer.Option(help="The audit log. With it, usage outlives this process.", show_default=False),
    ] = None


@with_bundles
def ptm_serve(
    model: ServedModel,
    options: ModelOptions,
    ray: RayOptions,
    provider: ProviderOptions,
    page: MetricsPage,
    listening: Listening,
    logs: Logging,
) -> None:
    """Answer queries to a model. Label scores leave the service; weights and gradients never do.

    Example: fedbbpt ptm serve --model all-MiniLM-L6-v2 --port 7001
    """
    logs.start()
    tracing.start("ptm")
    watched = Reloading([*listening.files(), provider.tenants, provider.tls_crl])
    tenants = _tenants(provider, listening)
    if model.engine is Compute.RAY:
        _serve_on_ray(model, _ray_options(options), ray, provider, page, listening, tenants, watched)
        return
    if ray.ray_address or ray.replicas != "1":
        what = "replicas and a cluster need Ray"
        raise InvalidInput(what, where="--replicas, --ray-address", fix="--engine ray")
    with progress(f"loading {model.model}"):
        backend = load(
            model.model,
            threads=model.threads,
            runtime=Runtime(model.engine.value),
            api_key=read_token(model.api_key_file),
            **{"precision": PrecisionChoice.AUTO, **options.given()},
        )
    engine = Engine(backend, time.monotonic, tenants=tenants, audit_file=provider.audit)
    try:
        asyncio.run(_serve(backend.describe().model, engine, provider, page, listening, tenants, watched))
    finally:
        engine.close()


async def _serve(
    name: str,
    engine: Engine,
    provider: ProviderOptions,
    page: MetricsPage,
    listening: Listening,
    tenants: Tenants,
    watched: Reloading,
) -> None:
    host, tls = listening.host, listening.tls()
    serving = await serve(engine, host, listening.port, tls=tls, tenants=tenants, insecure=listening.insecure)
    stop_metrics = page.serve(lambda: serving.service.metrics.registry)
    announce(f"PTM {name}", host, serving.port, listening.address_file)

    async def reload() -> None:
        await serving.reload(_tenants(provider, listening))

    try:
        with watched.by(on_loop(reload)):
            await until_done(serving.stop)
    finally:
        stop_metrics()


def _ray_options(options: ModelOptions) -> dict[str, Any]:
    """Returns the options of a replica. Each would measure by itself, and all must agree, so auto is float32 here."""
    given = options.given()
    if (device := given.get("device", "cpu")) != "cpu":
        what = f"replicas on Ray compute on the CPU, not on {device}"
        raise InvalidInput(what, where="--device", fix="cpu, or --engine torch")
    fixed = given.get("precision", PrecisionChoice.AUTO)
    return {**given, "precision": PrecisionChoice.FLOAT32 if fixed is PrecisionChoice.AUTO else fixed}


def _serve_on_ray(
    model: ServedModel,
    options: dict[str, Any],
    ray: RayOptions,
    provider: ProviderOptions,
    page: MetricsPage,
    listening: Listening,
    tenants: Tenants,
    watched: Reloading,
) -> None:
    _check_ray(model, ray, provider, page, listening)
    size = cluster.Size(*_replicas(ray.replicas), model.threads or 1)
    with progress(f"starting {model.model} on Ray"):
        serving = cluster.serve(
            partial(load, model.model, threads=size.threads, **options),
            size,
            tenants,
            listening.host,
            listening.port,
            address=ray.ray_address,
            insecure=listening.insecure,
            audit=provider.audit,
            metrics=(page.metrics_host, page.metrics_port) if page.metrics_port else None,
        )
    announce(f"PTM {serving.card.model}", listening.host, serving.port, listening.address_file)
    with watched.by(_refuse_reload):
        asyncio.run(until_done(serving.stop))


def _refuse_reload() -> None:
    raise InvalidInput("a service on Ray reads no file again", where="--engine ray", fix="start the service again")


def _check_ray(
    model: ServedModel, ray: RayOptions, provider: ProviderOptions, page: MetricsPage, listening: Listening
) -> None:
    if listening.tls() is not None:
        raise InvalidInput("Ray has no TLS", where="--tls-cert", fix="a TLS proxy on the same machine")
    if model.model.startswith(("openai:", "openai-chat:")):
        what, fix = "a model behind another server has no replicas here", "--engine torch"
        raise InvalidInput(what, where="--engine ray", fix=fix)
    if ray.ray_address not in ("", "auto"):
        parse_address(ray.ray_address.removeprefix("ray://"), "--ray-address", several=False)
    if ray.ray_address and (provider.audit or page.metrics_port or not listening.port):
        what = "with --ray-address the service may run on another machine, whose files and ports these would be"
        raise InvalidInput(what, where="--audit, --metrics-port, --port 0", fix="--port alone, or no --ray-address")


def _replicas(text: str) -> tuple[int, int]:
    """Returns the fewest and the most replicas."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})(?:\.\.([1-9][0-9]{0,3}))?", text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most:
        what = f"{text!r} is not a number or range of replicas"
        raise InvalidInput(what, where="--replicas", fix="for example 2, or 1..4")
    return fewest, most


def _tenants(provider: ProviderOptions, listening: Listening) -> Tenants:
    found = _agreements(provider, listening)
    if provider.tls_crl is None:
        return found
    if listening.tls_client_ca is None:
        what, fix = "callers without certificates have none that could be revoked", "--tls-client-ca as well"
        raise InvalidInput(what, where="--tls-crl", fix=fix)
    from fedbbpt.identity.revocation import read_revoked  # needs `cryptography`, and few services have certificates

    return found.without(read_revoked(provider.tls_crl, listening.tls_client_ca))


def _agreements(provider: ProviderOptions, listening: Listening) -> Tenants:
    if provider.tenants is not None and listening.tokens is not None:
        what = "both options say which callers are admitted"
        raise InvalidInput(what, where="--tenants, --tokens", fix="one of them")
    if provider.tenants is not None and provider.label_tokens:
        what = "both options say how many label tokens a tenant may have"
        raise InvalidInput(what, where="--tenants, --label-tokens", fix="the key label_tokens in the file alone")
    if provider.tenants is not None:
        return read_tenants(provider.tenants)
    agreement = ANYONE.model_copy(update={"label_tokens": _label_tokens(provider.label_tokens)})
    members = listening.members()
    return Tenants.anyone(agreement) if members is None else Tenants.of_tokens(members, agreement)


def _label_tokens(text: str) -> int | str | None:
    """Returns the budget that --label-tokens names; None: the default one."""
    if text in ("", "all"):
        return text or None
    if not text.isdecimal() or not 2 <= int(text) <= MAX_BUDGET:
        raise InvalidInput(f"{text!r} is not a number of label tokens", where="--label-tokens", fix="2 or more, or all")
    return int(text)
