"""The command `enrol`: makes a key, and gets a certificate for it from a coordinator's authority."""

from pathlib import Path
from typing import Annotated

import typer

from fedbbpt.cli.terminal import options
from fedbbpt.cli.terminal.console import show
from fedbbpt.cli.terminal.options import read_token
from fedbbpt.errors import InvalidInput, StoreError
from fedbbpt.host.files import atomic_write
from fedbbpt.identity import issuing
from fedbbpt.identity.certificates import identity_of
from fedbbpt.identity.invitations import parse_invitation
from fedbbpt.wire.addresses import parse_address
from fedbbpt.wire.enrolment import enrol as enrol_at
from fedbbpt.wire.enrolment import fetch_authority
from fedbbpt.wire.enrolment import renew as renew_at
from fedbbpt.wire.tls import ClientTls

CA, CERTIFICATE, KEY = "ca.pem", "cert.pem", "key.pem"


def enrol(
    coordinator: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="The coordinator's address for enrolment; with --renew, that for clients.",
        ),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for key.pem, cert.pem and ca.pem.")
    ],
    invitation: Annotated[
        str, typer.Option(metavar="WORD|FILE", help="The invitation from `fedbbpt admin invite`, or a file with it.")
    ] = "",
    renew: Annotated[
        bool, typer.Option("--renew", help="Replace the certificate in the folder before it expires.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make a key, and get a certificate for it with an invitation.

    The key never leaves this machine. The coordinator is recognised by the invitation. If the command is interrupted,
    repeat it: the invitation works again for the key that is in the folder already.

    Example: fedbbpt enrol --invitation north.invitation --coordinator hub.example.org:7001 --out north
    """
    parse_address(coordinator, "--coordinator", several=False)
    if renew == bool(invitation):
        fix = "--invitation for a first certificate, --renew for the next one"
        raise InvalidInput("one of both gets a certificate", where="--invitation, --renew", fix=fix)
    ca, certificate, key_file = (out_folder / name for name in (CA, CERTIFICATE, KEY))
    try:
        if renew:
            key = issuing.read_key(_read(key_file), str(key_file))
            pem = renew_at(coordinator, ClientTls(ca, certificate, key_file), issuing.signing_request(key))
        else:
            invited = parse_invitation(_word(invitation), "--invitation")
            authority = fetch_authority(coordinator, invited)
            out_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not key_file.exists():
                atomic_write(key_file, issuing.key_pem(issuing.new_key()), mode=0o600)
            key = issuing.read_key(_read(key_file), str(key_file))
            atomic_write(ca, authority)
            pem = enrol_at(coordinator, ca, invited.token, issuing.signing_request(key))
        atomic_write(certificate, pem)
    except OSError as error:
        fix = "a folder that this user may write to"
        raise StoreError(error.strerror or str(error), where=str(error.filename or out_folder), fix=fix) from None
    holder = identity_of(pem)
    show({"name": holder.name, "role": str(holder.role), "out": str(out_folder)}, json, title="enrolled")


def _word(given: str) -> str:
    """Returns an invitation that is given as a word or as a file with it."""
    path = Path(given)
    return read_token(path) if path.exists() else given


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        fix = "the folder that `fedbbpt enrol --invitation` wrote"
        raise InvalidInput(error.strerror or str(error), where=str(path), fix=fix) from None
