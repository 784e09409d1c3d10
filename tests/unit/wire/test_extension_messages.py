"""Settings of plug-in methods keep their types and bits on the wire, and malformed ones are refused."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedbbpt.errors import InvalidRequest, InvalidTensor
from fedbbpt.types import ExtensionSettings, SettingValue
from fedbbpt.v1 import method_pb2 as pb
from fedbbpt.v1 import tensor_pb2
from fedbbpt.wire.messages.extension_messages import extension_message, extension_settings

VALUES = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=20))


@given(values=st.dictionaries(st.text(max_size=10), VALUES, max_size=6))
def test_values_come_back_with_their_types(values: Mapping[str, SettingValue]) -> None:
    """Kills: sending a flag as an integer, or an integer as a number."""
    sent = ExtensionSettings("mine", "1.2", values)
    read = extension_settings(pb.ExtensionSettings.FromString(extension_message(sent).SerializeToString()))
    assert read == sent
    assert [type(value) for value in read.values.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize("value", [0, 0.0, False, ""])
def test_values_that_are_zero_are_present(value: SettingValue) -> None:
    read = extension_settings(extension_message(ExtensionSettings("mine", "1", {"zero": value})))
    assert read.values == {"zero": value} and type(read.values["zero"]) is type(value)


def test_a_number_may_be_infinite_or_no_number() -> None:
    values = {"infinite": math.inf, "nan": math.nan}
    read = extension_settings(extension_message(ExtensionSettings("mine", "1", values)))
    assert read.values["infinite"] == math.inf
    assert math.isnan(float(str(read.values["nan"])))


def test_an_array_comes_back_bit_for_bit() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    read = extension_settings(extension_message(ExtensionSettings("mine", "1", {"start": array})))
    found = read.values["start"]
    assert isinstance(found, np.ndarray)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_a_setting_without_a_value_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"method.extension.settings.size: the setting has no value"):
        extension_settings(pb.ExtensionSettings(settings=[pb.Setting(name="size")]))


def test_a_setting_that_occurs_twice_is_refused() -> None:
    twice = [pb.Setting(name="size", integer=1), pb.Setting(name="size", integer=2)]
    with pytest.raises(InvalidRequest, match=r"settings.size: the setting occurs twice"):
        extension_settings(pb.ExtensionSettings(settings=twice))


def test_a_malformed_tensor_is_refused_by_its_name() -> None:
    tensor = tensor_pb2.Tensor(dtype=tensor_pb2.D_TYPE_FLOAT32, shape=[3], data=b"1234")
    with pytest.raises(InvalidTensor, match=r"settings.start"):
        extension_settings(pb.ExtensionSettings(settings=[pb.Setting(name="start", tensor=tensor)]))
