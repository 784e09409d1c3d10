"""Codecs: they encode arrays in fewer bytes before these travel."""

from collections.abc import Mapping

from fedbbpt.codecs.cast import Bfloat16, Cast
from fedbbpt.codecs.chain import Chain, Format
from fedbbpt.codecs.integers import Integers
from fedbbpt.codecs.rotation import Rotation
from fedbbpt.codecs.top_k import LINK, TopK
from fedbbpt.interfaces import Codec

FORMATS: Mapping[str, Format] = {
    # The sum of many float16 arrays may overflow where none of them does; float32 has a far larger range.
    "float32": Cast("float32", additive=True),
    "float16": Cast("float16", additive=False),
    "bfloat16": Bfloat16(),
    "int8": Integers("int8", 127),
    "int4": Integers("int4", 7),
}
"""The formats of numbers by their names in a job. A codec's name ends with one of them."""
LINKS = frozenset({*FORMATS, Rotation().name, LINK})
"""The names of everything that a chain can have."""
CODECS: Mapping[str, Codec] = {
    chain.name: chain
    for chain in [
        *(Chain((), each) for each in FORMATS.values()),
        *(Chain((Rotation(),), each) for each in FORMATS.values() if isinstance(each, Integers)),
    ]
}
"""The codecs without options by their names in a job: their links in the order in which they encode, joined by "+"."""
SPARSE: Mapping[str, Format] = {f"{LINK}+{name}": FORMATS[name] for name in ("float16", "int8")}
"""The formats of the numbers that travel, by the names of the codecs that send only the largest ones."""


def codec_of(name: str, *, kept: float, point: str) -> Codec:
    """Returns the codec of a run.

    Args:
        name: Its name in a job.
        kept: The share of the point's numbers that travel with a codec of `SPARSE`.
        point: The name of the array that moves from round to round; "" if there is none.
    """
    return TopK(kept, SPARSE[name], point) if name in SPARSE else CODECS[name]
