"""Commands of whoever admits members: tokens, and an authority that issues certificates to those who are invited."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import out, show
from fedbbpt.errors import InvalidInput, StoreError
from fedbbpt.host.files import atomic_write
from fedbbpt.identity.authority import Authority, Certified, Invited
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import Token, add_token, read_tokens, remove_tokens
from fedbbpt.wire.addresses import check_host

Name = Annotated[str, typer.Argument(metavar="NAME", help="The member's name, which is its client id in runs.")]
RoleOption = Annotated[Role, typer.Option(help="What the member may do.")]
TokensFile = Annotated[
    Path, typer.Option(metavar="FILE", help="The tokens file that a coordinator or a PTM service has as --tokens.")
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The file for it. By default it is printed.", show_default=False),
]
Folder = Annotated[
    Path, typer.Option("--authority", metavar="DIR", help="The folder of the authority, to keep from others.")
]
FOLDER = Path("authority")
GivenTokens = Annotated[
    Path | None, typer.Option("--tokens", metavar="FILE", help="A tokens file.", show_default=False)
]
GivenFolder = Annotated[
    Path | None,
    typer.Option("--authority", metavar="DIR", help="The folder of an authority.", show_default=False),
]


def token(
    name: Name,
    tokens: TokensFile,
    role: RoleOption = Role.CLIENT,
    out_file: OutFile = None,
    json: options.Json = False,
) -> None:
    """Make a bearer token for a member, and add its digest to a tokens file.

    Send the token to the member; it is stored nowhere. The member's token before stays valid until you make the next
    one, so that it can be replaced without a pause. Services read the file again when it changes.

    Example: fedbbpt admin token north --tokens tokens --out north.token
    """
    with _writing():
        _hand_over("token", name, role, add_token(tokens, name, role), out_file, json)


def init_ca(
    hosts: Annotated[
        list[str], typer.Argument(metavar="HOST...", help="The names or IP addresses by which servers are reached.")
    ],
    authority: Folder = FOLDER,
    json: options.Json = False,
) -> None:
    """Make an authority, unless there is one, and a certificate with its key for each server.

    Example: fedbbpt admin init-ca hub.example.org ptm.example.org
    """
    checked = [check_host(host, "HOST") for host in hosts]
    with _writing():
        found = Authority.found(authority)
        files = {host: [str(path) for path in found.certify_server(host)] for host in checked}
    shown = {host: ", ".join(paths) for host, paths in files.items()}
    show({"authority": str(found.ca)} | (files if json else shown), json)


def invite(
    name: Name,
    role: RoleOption = Role.CLIENT,
    hours: Annotated[float, typer.Option(min=0.01, max=8760.0, help="How long the invitation is valid.")] = 72.0,
    authority: Folder = FOLDER,
    out_file: OutFile = None,
    json: options.Json = False,
) -> None:
    """Make an invitation: one word, with which `fedbbpt enrol` gets a certificate once.

    Send it to the member over a channel that others do not read. It takes the place of the member's earlier ones.

    Example: fedbbpt admin invite north
    """
    with _writing():
        _hand_over("invitation", name, role, str(Authority(authority).invite(name, role, hours)), out_file, json)


def revoke(name: Name, authority: GivenFolder = None, tokens: GivenTokens = None, json: options.Json = False) -> None:
    """Take a member's certificates, invitations and tokens away. Its open streams end within seconds.

    Example: fedbbpt admin revoke north --authority authority
    """
    if authority is None and tokens is None:
        raise InvalidInput("nothing to take away", where="--authority, --tokens", fix="one of them, or both")
    with _writing():
        result = {"name": name}
        if authority is not None:
            result |= {"certificates": str(Authority(authority).revoke(name))}
        if tokens is not None:
            removed = remove_tokens(tokens, name)
            if authority is None and not removed:
                fix = "a name that `fedbbpt admin list` shows"
                raise InvalidInput(f"no member {name!r}", where=str(tokens), fix=fix)
            result |= {"tokens": str(removed)}
    show(result, json, title="revoked")


def list_admitted(authority: GivenFolder = None, tokens: GivenTokens = None, json: options.Json = False) -> None:
    """List the members that have a certificate, an invitation or a token.

    Example: fedbbpt admin list --authority authority
    """
    if authority is None and tokens is None:
        raise InvalidInput("nothing to list", where="--authority, --tokens", fix="one of them, or both")
    invited, certified = Authority(authority).members() if authority is not None else ((), ())
    known = read_tokens(tokens) if tokens is not None else []
    if json:
        rows = {"invitations": _rows(invited), "certificates": _rows(certified), "tokens": _rows(known)}
        show(rows, as_json=True)
        return
    table = Table(box=None, header_style="dim")
    for title in ("name", "role", "has", "until"):
        table.add_column(title)
    for certificate in certified:
        what = "revoked certificate" if certificate.revoked else "certificate"
        table.add_row(certificate.name, certificate.role, what, certificate.expires)
    for invitation in invited:
        table.add_row(invitation.name, invitation.role, "invitation", invitation.expires)
    for each in known:
        table.add_row(each.name, each.role, "token", "")
    out.print(table)


def _rows(found: Sequence[Invited | Certified | Token]) -> list[dict[str, object]]:
    """Returns what may be seen of each."""
    return [{key: value for key, value in asdict(each).items() if not key.endswith("sha256")} for each in found]


def _hand_over(what: str, name: str, role: Role, made: str, out_file: Path | None, json: bool) -> None:
    """Prints a secret, or writes it to a file that only this user can read."""
    if out_file is not None:
        atomic_write(out_file, f"{made}\n", mode=0o600)
        show({"name": name, "role": str(role), "out": str(out_file)}, json, title=what)
    elif json:
        show({"name": name, "role": str(role), what: made}, as_json=True)
    else:
        sys.stdout.write(f"{made}\n")


@contextmanager
def _writing() -> Iterator[None]:
    """Raises StoreError if a file cannot be written."""
    try:
        yield
    except OSError as error:
        fix = "a folder that this user may write to"
        raise StoreError(error.strerror or str(error), where=str(error.filename or ""), fix=fix) from None
