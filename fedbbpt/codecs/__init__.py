"""How an update's arrays are made smaller on their way up."""

from collections.abc import Mapping

from fedbbpt.codecs.cast import Cast
from fedbbpt.codecs.int8 import Int8
from fedbbpt.interfaces import Codec

CODECS: Mapping[str, Codec] = {
    # Float32 sums stay far inside the type's range; those of float16 may leave it where their parts do not.
    "float32": Cast("float32", additive=True),
    "float16": Cast("float16", additive=False),
    "int8": Int8(),
}
