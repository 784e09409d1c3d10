"""Command-line options that several commands share, and what they mean."""

from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.errors import InvalidInput
from fedbbpt.wire.tls import ClientTls, ServerTls

_SECURITY, _DATA = "Security", "Data"

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Host = Annotated[str, typer.Option(help="The address to listen on. Without TLS: loopback only, unless --insecure.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 takes a free one.")]
AddressFile = Annotated[
    Path | None, typer.Option(help="Write HOST:PORT to this file once the service listens.", show_default=False)
]
TlsCert = Annotated[Path | None, typer.Option(help="This server's certificate chain (PEM).", rich_help_panel=_SECURITY)]
TlsKey = Annotated[Path | None, typer.Option(help="This server's private key (PEM).", rich_help_panel=_SECURITY)]
TlsClientCa = Annotated[
    Path | None,
    typer.Option(help="Admit only callers with a certificate of this authority (PEM).", rich_help_panel=_SECURITY),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond loopback without TLS.", rich_help_panel=_SECURITY)
]
Tokens = Annotated[
    Path | None,
    typer.Option(
        "--token-file", help="Admit callers with a token of this file, one a line.", rich_help_panel=_SECURITY
    ),
]
TlsCa = Annotated[
    Path | None,
    typer.Option(help="The authority of the coordinator's certificate (PEM).", rich_help_panel=_SECURITY),
]
ClientCert = Annotated[
    Path | None, typer.Option(help="A certificate to show to the coordinator (PEM).", rich_help_panel=_SECURITY)
]
ClientKey = Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=_SECURITY)]
Token = Annotated[
    Path | None,
    typer.Option("--token-file", help="The token to show to the coordinator.", rich_help_panel=_SECURITY),
]
PtmTlsCa = Annotated[
    Path | None, typer.Option(help="The authority of the PTM service's certificate.", rich_help_panel=_SECURITY)
]
PtmClientCert = Annotated[
    Path | None, typer.Option(help="A certificate to show to the PTM service (PEM).", rich_help_panel=_SECURITY)
]
PtmClientKey = Annotated[Path | None, typer.Option(help="Its private key (PEM).", rich_help_panel=_SECURITY)]
PtmToken = Annotated[
    Path | None,
    typer.Option("--ptm-token-file", help="The token to show to the PTM service.", rich_help_panel=_SECURITY),
]
Ptm = Annotated[
    str,
    typer.Option(
        metavar="HOST:PORT,...", help="A running PTM service; several with commas share the work.", show_default=False
    ),
]
TextColumn = Annotated[str, typer.Option(help="The column of the input.", rich_help_panel=_DATA)]
PairColumn = Annotated[str, typer.Option(help="The column of a second input.", rich_help_panel=_DATA)]
LabelColumn = Annotated[str, typer.Option(help="The column of the label.", rich_help_panel=_DATA)]


def server_tls(certificate: Path | None, key: Path | None, client_ca: Path | None) -> ServerTls | None:
    if certificate is None and key is None and client_ca is None:
        return None
    if certificate is None or key is None:
        raise InvalidInput("half a TLS identity", where="--tls-cert, --tls-key", fix="both of them")
    return ServerTls(certificate, key, client_ca)


def client_tls(ca: Path | None, certificate: Path | None, key: Path | None, *, ptm: bool = False) -> ClientTls | None:
    """Of the options for the coordinator, or of those for the PTM service, which begin with another word."""
    start = "--ptm-" if ptm else "--"
    if (certificate is None) != (key is None):
        where = f"{start}client-cert, {start}client-key"
        raise InvalidInput("half a TLS identity", where=where, fix="both of them")
    if ca is None:
        if certificate is not None:
            where, fix = f"{start}client-cert", f"{start}tls-ca as well"
            raise InvalidInput("a client certificate without TLS", where=where, fix=fix)
        return None
    return ClientTls(ca, certificate, key)


def read_tokens(path: Path | None) -> list[str]:
    """One a line; blank lines do not count."""
    if path is None:
        return []
    try:
        tokens = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(str(error), where=str(path), fix="a text file with a token a line") from None
    if not tokens:
        raise InvalidInput("no token in it", where=str(path), fix="at least one line")
    return tokens


def read_token(path: Path | None) -> str:
    """The first token of the file; empty without a file."""
    return read_tokens(path)[0] if path else ""
