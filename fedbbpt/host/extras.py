"""Optional packages: an import that fails tells the user which extra of fedbbpt to install."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from fedbbpt.errors import InvalidInput


@contextmanager
def needs_extra(extra: str, *, where: str, alternative: str = "") -> Iterator[None]:
    """Surrounds imports that need the packages of an extra of fedbbpt.

    Args:
        extra: The extra's name in pyproject.toml, such as `ptm`.
        where: The option, method or model that needs the extra.
        alternative: A way to do without the extra, for the message.

    Raises:
        InvalidInput: A package is not installed. The message has the `pip install` command.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        if package == "fedbbpt":  # a mistake in this project, which no installation repairs
            raise
        raise _missing(package, extra, where, alternative) from None


def require_package(package: str, extra: str, *, where: str, alternative: str = "") -> None:
    """Raises InvalidInput, as `needs_extra` does, if `package` is not installed. Does not import it."""
    try:
        found = find_spec(package)
    except ModuleNotFoundError:  # a package around it is missing
        found = None
    if found is None:
        raise _missing(package, extra, where, alternative)


def _missing(package: str, extra: str, where: str, alternative: str) -> InvalidInput:
    fix = f"pip install 'fedbbpt[{extra}]'" + (f", or {alternative}" if alternative else "")
    return InvalidInput(f"{package} is not installed", where=where, fix=fix)
