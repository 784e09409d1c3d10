"""Groups of options that always come together, such as an address with its TLS files and its token.

A command takes a bundle as one parameter:

    @with_bundles
    def stop(coordinator: CoordinatorAccess, json: options.Json = False) -> None: ...

Typer reads options from a function's parameters only, so `with_bundles` replaces such a parameter by the
fields of the bundle.
"""

import inspect
import logging
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from fedbbpt.cli.terminal import ptms_file
from fedbbpt.cli.terminal.options import DATA, SECURITY, read_token
from fedbbpt.data.columns import Columns
from fedbbpt.errors import InvalidInput
from fedbbpt.host.metrics_page import serve_metrics
from fedbbpt.identity.certificates import identity_of
from fedbbpt.identity.tokens_file import Token, read_tokens
from fedbbpt.wire.addresses import check_host, parse_address
from fedbbpt.wire.channel import Channel, connect
from fedbbpt.wire.peers import COORDINATOR, PTM
from fedbbpt.wire.renewed_channel import RenewedChannel
from fedbbpt.wire.tls import ClientTls, ServerTls

if TYPE_CHECKING:  # a command that takes no job should not wait for what describes one
    from prometheus_client import CollectorRegistry

    from fedbbpt.identity.authority import Authority
    from fedbbpt.job.config import Job

log = logging.getLogger(__name__)


def with_bundles(command: Callable[..., None]) -> Callable[..., None]:
    """Returns the command with every bundle among its parameters replaced by the bundle's fields."""
    parameters, bundles = list[inspect.Parameter](), dict[str, Any]()
    for name, parameter in inspect.signature(command, eval_str=True).parameters.items():
        kind = parameter.annotation
        if is_dataclass(kind):
            bundles[name] = kind
            parameters += _parameters(kind)
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    def wrapper(**given: Any) -> None:
        for name, kind in bundles.items():
            given[name] = kind(**{each.name: given.pop(each.name) for each in fields(kind) if each.init})
        command(**given)

    wrapper.__name__, wrapper.__doc__, wrapper.__module__ = command.__name__, command.__doc__, command.__module__
    wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    vars(wrapper)["__signature__"] = inspect.Signature(parameters)
    return wrapper


def _parameters(bundle: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(bundle, include_extras=True)
    return [
        inspect.Parameter(
            each.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if each.default is MISSING else each.default,
            annotation=hints[each.name],
        )
        for each in fields(bundle)
        if each.init
    ]


def _file(help_text: str, *names: str) -> Any:
    return typer.Option(*names, help=help_text, rich_help_panel=SECURITY, show_default=False)


@dataclass(frozen=True, slots=True)
class Listening:
    """The address that a service listens on, how it identifies itself there, and the callers that it admits."""

    host: Annotated[
        str,
        typer.Option(help="The address to listen on. Without TLS it must be loopback, except with --insecure."),
    ] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 picks a free one.")] = 0
    address_file: Annotated[
        Path | None, typer.Option(help="The file to write the address to once the service listens.", show_default=False)
    ] = None
    tls_cert: Annotated[Path | None, _file("The server's certificate chain (PEM).")] = None
    tls_key: Annotated[Path | None, _file("The server's private key (PEM).")] = None
    tls_client_ca: Annotated[Path | None, _file("The authority whose certificate a caller must have (PEM).")] = None
    tokens: Annotated[Path | None, _file("The file of the members' tokens, which `fedbbpt admin token` writes.")] = None
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond loopback without TLS.", rich_help_panel=SECURITY)
    ] = False

    def __post_init__(self) -> None:
        """Takes brackets off the host. Raises InvalidInput if it is neither a name nor an address."""
        object.__setattr__(self, "host", check_host(self.host, "--host"))

    def tls(self) -> ServerTls | None:
        """Returns the server's TLS files, or None without TLS. Raises InvalidInput if only some are given."""
        if self.tls_cert is None and self.tls_key is None and self.tls_client_ca is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            where = "--tls-cert, --tls-key"
            raise InvalidInput("TLS needs a certificate and its key", where=where, fix="both options")
        return ServerTls(self.tls_cert, self.tls_key, self.tls_client_ca)

    def members(self) -> list[Token] | None:
        """Returns the members' tokens, or None without a file. Raises InvalidInput."""
        if self.tokens is None:
            return None
        if not (found := read_tokens(self.tokens)):
            log.warning("%s holds no token, so it admits nobody", self.tokens)
        return found

    def files(self) -> list[Path | None]:
        """Returns the files that a service reads again while it runs."""
        return [self.tls_cert, self.tls_key, self.tls_client_ca, self.tokens]


@dataclass(frozen=True, slots=True)
class Admitting(Listening):
    """The address that a coordinator listens on, and the authority by whose certificates it knows its members."""

    authority: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder of the members' authority, which `fedbbpt admin init-ca` makes.",
            rich_help_panel=SECURITY,
            show_default=False,
        ),
    ] = None
    enrol_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The port on which `fedbbpt enrol` gets certificates, with --authority; 0 picks a free one. "
            "By default there is none.",
            rich_help_panel=SECURITY,
            show_default=False,
        ),
    ] = None

    def tls(self) -> ServerTls | None:
        """Returns the server's TLS files. Raises InvalidInput if only some are given."""
        tls, authority = Listening.tls(self), self.opened_authority()
        if authority is None:
            if self.enrol_port is not None:
                where, fix = "--enrol-port", "--authority with the folder that `fedbbpt admin init-ca` made"
                raise InvalidInput("certificates need an authority", where=where, fix=fix)
            return tls
        if tls is None:
            fix = "--tls-cert and --tls-key with the files of this host in the authority's folder"
            raise InvalidInput("members show certificates only with TLS", where="--authority", fix=fix)
        if tls.client_ca is not None:
            what = "both options say whose certificates are accepted"
            raise InvalidInput(what, where="--authority, --tls-client-ca", fix="one of them")
        return replace(tls, client_ca=authority.ca)

    def opened_authority(self) -> "Authority | None":
        """Returns the members' authority, or None without one. Raises InvalidInput."""
        if self.authority is None:
            return None
        from fedbbpt.identity.authority import Authority  # most commands sign no certificates

        return Authority(self.authority)

    def files(self) -> list[Path | None]:
        """Returns the files that a coordinator reads again while it runs."""
        authority = self.opened_authority()
        return [*Listening.files(self), *([authority.ca, authority.records] if authority else [])]


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """The address of a page with a service's metrics, which Prometheus reads."""

    metrics_port: Annotated[
        int, typer.Option(min=0, max=65535, help="The port of the metrics for Prometheus; 0 means none.")
    ] = 0
    metrics_host: Annotated[str, typer.Option(help="The address of the metrics for Prometheus.")] = "127.0.0.1"

    def __post_init__(self) -> None:
        """Raises InvalidInput if the host is neither a name nor an address."""
        object.__setattr__(self, "metrics_host", check_host(self.metrics_host, "--metrics-host"))

    def serve(self, registry: Callable[[], "CollectorRegistry"]) -> Callable[[], None]:
        """Serves the metrics, if a port is given, and returns a function that stops that. Raises PortTaken."""
        return serve_metrics(registry(), self.metrics_host, self.metrics_port) if self.metrics_port else lambda: None


@dataclass(frozen=True, slots=True)
class CoordinatorAccess:
    """A coordinator's address, and how to identify oneself there."""

    coordinator: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The coordinator's address, or those of it and of its standby, separated by commas.",
        ),
    ]
    tls_ca: Annotated[Path | None, _file("The authority that signed the coordinator's certificate (PEM).")] = None
    client_cert: Annotated[Path | None, _file("The certificate to show to the coordinator (PEM).")] = None
    client_key: Annotated[Path | None, _file("The private key of --client-cert (PEM).")] = None
    token_file: Annotated[Path | None, _file("The file with the token to show to the coordinator.")] = None

    def __post_init__(self) -> None:
        """Raises InvalidInput if the address is not one, before a command reads any data."""
        parse_address(self.coordinator, COORDINATOR.option)

    def own_name(self) -> str:
        """Returns the member's name in --client-cert, or "". Raises InvalidInput if the file has no certificate."""
        if self.client_cert is None:
            return ""
        try:
            return identity_of(self.client_cert.read_bytes()).name
        except (OSError, ValueError):
            where, fix = str(self.client_cert), "a certificate in PEM"
            raise InvalidInput("the file holds no certificate that can be read", where=where, fix=fix) from None

    def connect(self) -> RenewedChannel:
        """Opens a channel to the coordinator. Raises InvalidInput."""

        def open_channel() -> Channel:
            tls = _client_tls(self.tls_ca, self.client_cert, self.client_key, COORDINATOR.prefix)
            return connect(self.coordinator, tls, read_token(self.token_file))

        return RenewedChannel(open_channel)

    def files(self) -> list[Path | None]:
        """Returns the files that a client reads again while it runs."""
        return [self.tls_ca, self.client_cert, self.client_key, self.token_file]


@dataclass(frozen=True, slots=True, kw_only=True)
class PtmSecurity:
    """How to recognise a PTM service, and how to identify oneself there."""

    ptm_tls_ca: Annotated[Path | None, _file("The authority that signed the PTM service's certificate (PEM).")] = None
    ptm_client_cert: Annotated[Path | None, _file("The certificate to show to the PTM service (PEM).")] = None
    ptm_client_key: Annotated[Path | None, _file("The private key of --ptm-client-cert (PEM).")] = None
    ptm_token_file: Annotated[Path | None, _file("The file with the token to show to the PTM service.")] = None

    def tls(self) -> ClientTls | None:
        """Returns the TLS files to use with the service, or None without TLS. Raises InvalidInput."""
        return _client_tls(self.ptm_tls_ca, self.ptm_client_cert, self.ptm_client_key, PTM.prefix)

    def token(self) -> str:
        """Returns the token to show to the service, or "". Raises InvalidInput."""
        return read_token(self.ptm_token_file)

    def files(self) -> list[Path | None]:
        """Returns the files that a client reads again while it runs."""
        return [self.ptm_tls_ca, self.ptm_client_cert, self.ptm_client_key, self.ptm_token_file]


@dataclass(frozen=True, slots=True, kw_only=True)
class PtmAccess(PtmSecurity):
    """A PTM service that a command may ask. Without `ptm` there is no service to ask."""

    ptm: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,...|NAME",
            help="A running PTM service, by its address or by its name in --ptms. Several addresses, separated by "
            "commas, share the work.",
            show_default=False,
        ),
    ] = ""
    ptms: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="The file with PTM services by name: address, TLS files, token, revision (TOML)."
        ),
    ] = ptms_file.DEFAULT
    revision: str = field(default="", init=False)
    """The only revision of the model that the user wants to ask; empty: the current one."""

    def __post_init__(self) -> None:
        """Looks up a name. Raises InvalidInput if the address is not one, before a command reads any data."""
        if ptms_file.is_name(self.ptm):
            known = ptms_file.read_ptm(self.ptms, self.ptm)
            for name in ("tls_ca", "client_cert", "client_key", "token_file"):
                if (path := getattr(known, name)) and getattr(self, f"ptm_{name}") is None:
                    object.__setattr__(self, f"ptm_{name}", self.ptms.parent / path)
            object.__setattr__(self, "ptm", known.address)
            object.__setattr__(self, "revision", known.revision)
        if self.ptm:
            parse_address(self.ptm, PTM.option)

    def connect(self, address: str = "") -> RenewedChannel:
        """Opens a channel to the service at `ptm`, or else at `address`. Raises InvalidInput."""
        where = PTM.option if self.ptm else "the coordinator's address of the PTM service"
        return RenewedChannel(lambda: connect(self.ptm or address, self.tls(), self.token(), peer=PTM, where=where))


@dataclass(frozen=True, slots=True, kw_only=True)
class PtmService(PtmSecurity):
    """The PTM service that a command is about."""

    service: Annotated[str, typer.Argument(metavar="HOST:PORT", help="The address of a running PTM service.")]

    def connect(self) -> Channel:
        """Opens a channel to the service. Raises InvalidInput."""
        return connect(self.service, self.tls(), self.token(), peer=PTM, where="HOST:PORT")


def _column(help_text: str) -> Any:
    return typer.Option(metavar="NAME", help=help_text, rich_help_panel=DATA, show_default=False)


@dataclass(frozen=True, slots=True)
class InputColumns:
    """The names of the columns of inputs, and how a file of text is written. Empty: the usual ones."""

    text_column: Annotated[str, _column("The column with the input; by default text.")] = ""
    pair_column: Annotated[str, _column("The column with a second input; by default text_pair, if there is one.")] = ""
    delimiter: Annotated[
        str,
        typer.Option(
            metavar="CHARACTER",
            help="The character between the columns of a CSV file, or tab. By default it is found in the file.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = ""
    encoding: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The encoding of a text file, such as cp1252. By default UTF-8, or what its byte order mark says.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = ""

    def columns(self) -> Columns:
        """Returns the names as the readers of data files take them."""
        usual = Columns()
        return Columns(
            self.text_column or usual.text,
            self.pair_column or usual.pair,
            delimiter=self.delimiter,
            encoding=self.encoding,
        )


@dataclass(frozen=True, slots=True)
class ColumnNames(InputColumns):
    """The names of the columns of labelled examples, and how a file of text is written. Empty: the usual ones."""

    label_column: Annotated[str, _column("The column with the label; by default label.")] = ""

    def columns(self) -> Columns:
        """Returns the names as the readers of data files take them."""
        return replace(InputColumns.columns(self), label=self.label_column or Columns().label)

    def given(self) -> dict[str, str]:
        """Returns the options that were given, by the key of a job's `[data]` that means the same."""
        options = {field.name: getattr(self, field.name) for field in fields(ColumnNames)}
        return {key: value for key, value in options.items() if value}


@dataclass(frozen=True, slots=True)
class JobChanges(ColumnNames):
    """The data source, its columns and the seed that the command line gives instead of a job's own."""

    data: Annotated[
        str,
        typer.Option(
            metavar="PATH", help="The data to use instead of the job's: a file, a folder or a Hugging Face name."
        ),
    ] = ""
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="The seed to use instead of the job's.", show_default=False),
    ] = None

    def apply(self, job: "Job") -> "Job":
        """Returns the job with the given changes."""
        changes = self.given() | ({"source": self.data} if self.data else {})
        if changes:
            job = job.model_copy(update={"data": job.data.model_copy(update=changes)})
        if self.seed is not None:
            job = job.model_copy(update={"run": job.run.model_copy(update={"seed": self.seed})})
        return job


def _client_tls(ca: Path | None, certificate: Path | None, key: Path | None, prefix: str) -> ClientTls | None:
    if (certificate is None) != (key is None):
        where = f"{prefix}client-cert, {prefix}client-key"
        raise InvalidInput("a client certificate needs its key", where=where, fix="both options")
    if ca is None:
        if certificate is not None:
            fix = f"{prefix}tls-ca as well"
            raise InvalidInput("a client certificate is used only with TLS", where=f"{prefix}client-cert", fix=fix)
        return None
    return ClientTls(ca, certificate, key)
