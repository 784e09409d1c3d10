"""Settings of a plug-in method as named values of a few types, the form in which they travel to clients."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from fedbbpt.errors import InvalidPlugin, PluginMissing
from fedbbpt.methods.method import AnyMethod
from fedbbpt.types import ExtensionSettings, MethodSettings, SettingValue

INT64 = range(-(2**63), 2**63)


def extension_settings(method: AnyMethod, settings: MethodSettings) -> ExtensionSettings:
    """Returns the settings of a plug-in method in the form in which they travel.

    Raises:
        InvalidPlugin: The settings are no dataclass, or a field has a type that does not travel.
    """
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        raise InvalidPlugin(f"settings are a {type(settings).__name__}", where=method.name, fix="a frozen dataclass")
    names = [field.name for field in dataclasses.fields(settings)]
    values = {name: _travelling(method.name, name, getattr(settings, name)) for name in names}
    return ExtensionSettings(method.name, method.version, values)


def _travelling(method: str, name: str, value: object) -> SettingValue:
    if isinstance(value, bool | float | str | np.ndarray):
        return value
    if isinstance(value, int) and value in INT64:
        return value
    what = f"settings.{name} is a {type(value).__name__} that cannot be sent to clients"
    raise InvalidPlugin(what, where=f"method {method}", fix="int of 64 bits, float, bool, str or a NumPy array")


def plugin_settings(method: AnyMethod | None, sent: ExtensionSettings, known: Sequence[str]) -> MethodSettings:
    """Returns the settings that a client was told, as the plug-in's own dataclass.

    Args:
        method: The client's plug-in of that name, or None where it has none.
        known: The names of the methods that this client has, for the message.

    Raises:
        PluginMissing: The client lacks the plug-in, or has another version of it.
    """
    wanted = f"method {sent.name!r}, version {sent.version}"
    if method is None:
        what = f"the run uses {wanted}, which is not installed here; installed are {', '.join(known)}"
        raise PluginMissing(
            what, where="method", fix="install the package that the run's operator uses, and join again"
        )
    names = {field.name for field in dataclasses.fields(method.settings_type)}
    if method.version != sent.version or names != set(sent.values):
        what = f"the run uses {wanted}, and version {method.version} is installed here"
        raise PluginMissing(
            what, where="method", fix="install the version that the run's operator uses, and join again"
        )
    settings: MethodSettings = method.settings_type(**sent.values)
    return settings
