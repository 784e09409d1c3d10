"""Codecs: they compress the arrays of an update before a client sends them."""

from collections.abc import Mapping

from fedbbpt.codecs.cast import Cast
from fedbbpt.codecs.int8 import Int8
from fedbbpt.interfaces import Codec

CODECS: Mapping[str, Codec] = {
    # The sum of many float16 arrays may overflow where none of them does; float32 has a far larger range.
    "float32": Cast("float32", additive=True),
    "float16": Cast("float16", additive=False),
    "int8": Int8(),
}
"""Every codec by its name in a job."""
