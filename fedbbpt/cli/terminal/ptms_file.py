"""The file in which a user keeps its PTM services by name, so that a command needs their names only.

    [clinic]
    address = "ptm.example.org:7001"
    tls_ca = "ca.pem"
    revision = "9f2c"

Paths are relative to the file's folder.
"""

import re
from pathlib import Path

from pydantic import Field, ValidationError

from fedbbpt.errors import InvalidInput
from fedbbpt.toml.problems import first_problem, parse_toml
from fedbbpt.toml.section import Section

DEFAULT = Path(".fedbbpt/ptms.toml")


class KnownPtm(Section):
    """A PTM service that a user knows."""

    address: str = Field(min_length=1, description="HOST:PORT, or several separated by commas.")
    tls_ca: str = Field("", description="The authority that signed the service's certificate (PEM).")
    client_cert: str = Field("", description="The certificate to show to the service (PEM).")
    client_key: str = Field("", description="The private key of client_cert (PEM).")
    token_file: str = Field("", description="The file with the token to show to the service.")
    revision: str = Field("", description="The only revision of its model to ask; empty: the current one.")


def is_name(text: str) -> bool:
    """Returns whether `--ptm` gives a name: letters, digits, - and _. An address has a colon."""
    return re.fullmatch("[A-Za-z0-9_-]+", text) is not None


def read_ptm(path: Path, name: str) -> KnownPtm:
    """Returns the service of this name. Raises InvalidInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = f"{name!r} is no address, and there is no file of services: {getattr(error, 'strerror', error)}"
        fix = f"HOST:PORT, or a table [{name}] with its address in this file"
        raise InvalidInput(what, where=str(path), fix=fix) from None
    tables = parse_toml(text, str(path))
    if not isinstance(tables.get(name), dict):
        known = ", ".join(sorted(tables)) or "none"
        raise InvalidInput(f"no table [{name}]", where=str(path), fix=f"HOST:PORT, or a name of the file: {known}")
    try:
        return KnownPtm.model_validate(tables[name])
    except ValidationError as error:
        problem = first_problem(error, lambda path: () if path else tuple(KnownPtm.model_fields))
        raise InvalidInput(f"[{name}]: {problem.what}", where=str(path), fix=problem.fix) from None
