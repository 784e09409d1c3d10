"""Finds plug-ins by the entry points of installed packages, and loads one when its name is used.

A package offers a plug-in in its pyproject.toml:

    [project.entry-points."fedbbpt.methods"]
    my-method = "my_package.my_method:METHOD"

Nothing is imported until a job names the plug-in, so an installed package that is broken or malicious does nothing to
runs that do not use it.
"""

from collections.abc import Collection, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fedbbpt.errors import InvalidPlugin, first_line


def plugin_names(group: str) -> list[str]:
    """Returns the names that installed packages offer in an entry-point group, sorted."""
    return sorted(_found(group))


def load_plugin(group: str, name: str, built_in: Collection[str]) -> Any | None:
    """Returns the object that an entry point names, or None if no installed package offers `name`.

    Args:
        group: The entry-point group, such as "fedbbpt.methods".
        built_in: The names that fedbbpt itself uses in this group.

    Raises:
        InvalidPlugin: The name belongs to fedbbpt, several packages offer it, or the plug-in cannot be imported.
    """
    offers = _found(group).get(name, ())
    if not offers:
        return None
    packages = " and ".join(_package(offer) for offer in offers)
    if name in built_in:
        what = f"{packages} offers {name!r}, which is built into fedbbpt"
        raise InvalidPlugin(what, where=group, fix=f"uninstall {packages}, or use a version with another name")
    if len(offers) > 1:
        raise InvalidPlugin(f"{packages} both offer {name!r}", where=group, fix="uninstall all but one of them")
    try:
        return offers[0].load()
    except Exception as error:  # the plug-in's module may raise anything when it is imported
        what = f"{name!r} of {packages} does not load: {type(error).__name__}: {first_line(error)}"
        raise InvalidPlugin(what, where=group, fix=f"repair {offers[0].value}, or uninstall {packages}") from error


@cache
def _found(group: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Every offer of a group by its name. Reading the metadata of all packages takes milliseconds, so it is cached."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for offer in entry_points(group=group):
        found[offer.name] = (*found.get(offer.name, ()), offer)
    return found


def _package(offer: EntryPoint) -> str:
    return f"{offer.dist.name} {offer.dist.version}" if offer.dist is not None else offer.module
