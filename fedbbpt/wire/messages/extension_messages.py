"""Converts the settings of plug-in methods between `fedbbpt.types` and the messages of method.proto."""

import numpy as np

from fedbbpt.errors import InvalidRequest
from fedbbpt.types import ExtensionSettings, SettingValue
from fedbbpt.v1 import method_pb2 as pb
from fedbbpt.wire import tensors


def extension_message(settings: ExtensionSettings) -> pb.ExtensionSettings:
    """Writes the settings of a plug-in method."""
    written = [_setting(name, value) for name, value in settings.values.items()]
    return pb.ExtensionSettings(name=settings.name, version=settings.version, settings=written)


def _setting(name: str, value: SettingValue) -> pb.Setting:
    match value:
        case bool():  # before int, of which bool is a subclass
            return pb.Setting(name=name, flag=value)
        case int():
            return pb.Setting(name=name, integer=value)
        case float():
            return pb.Setting(name=name, number=value)
        case str():
            return pb.Setting(name=name, text=value)
        case np.ndarray():
            return pb.Setting(name=name, tensor=tensors.to_message(value))


def extension_settings(message: pb.ExtensionSettings) -> ExtensionSettings:
    """Reads the settings of a plug-in method.

    Raises:
        InvalidRequest: A setting has no value, or two have one name.
        InvalidTensor: A tensor is malformed.
    """
    values: dict[str, SettingValue] = {}
    for setting in message.settings:
        where = f"method.extension.settings.{setting.name}"
        kind = setting.WhichOneof("value")
        if kind is None:
            raise InvalidRequest("the setting has no value", where=where, fix="one value for each setting")
        if setting.name in values:
            raise InvalidRequest("the setting occurs twice", where=where, fix="each name once")
        value: SettingValue = getattr(setting, kind)
        values[setting.name] = tensors.from_message(setting.tensor, where=where) if kind == "tensor" else value
    return ExtensionSettings(message.name, message.version, values)
