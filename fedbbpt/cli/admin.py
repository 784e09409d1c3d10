"""Commands of whoever admits members: `admin token` makes a bearer token, `admin revoke` takes a member's away."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import show
from fedbbpt.host.files import atomic_write
from fedbbpt.identity.roles import Role
from fedbbpt.identity.tokens_file import add_token, remove_tokens

Name = Annotated[str, typer.Argument(metavar="NAME", help="The member's name, which is its client id in runs.")]
RoleOption = Annotated[Role, typer.Option(help="What the member may do.")]
TokensFile = Annotated[
    Path,
    typer.Option(metavar="FILE", help="The tokens file that a coordinator or a PTM service has as --tokens."),
]
OutFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The file for the token. By default it is printed.", show_default=False),
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
    made = add_token(tokens, name, role)
    if out_file is not None:
        atomic_write(out_file, f"{made}\n", mode=0o600)
        show({"name": name, "role": str(role), "out": str(out_file)}, json, title="token")
    elif json:
        show({"name": name, "role": str(role), "token": made}, as_json=True)
    else:
        sys.stdout.write(f"{made}\n")


def revoke(name: Name, tokens: TokensFile, json: options.Json = False) -> None:
    """Take a member's tokens out of a tokens file. Its open streams end within seconds.

    Example: fedbbpt admin revoke north --tokens tokens
    """
    show({"name": name, "tokens": remove_tokens(tokens, name)}, json, title="revoked")
