"""An update as the client has sent it, and the arrays in it."""

import time
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from fedbbpt.conformance.results import Broken
from fedbbpt.v1 import coordinator_pb2 as pb
from fedbbpt.v1 import tensor_pb2

TYPES = {
    tensor_pb2.D_TYPE_FLOAT32: "<f4",
    tensor_pb2.D_TYPE_FLOAT64: "<f8",
    tensor_pb2.D_TYPE_FLOAT16: "<f2",
    tensor_pb2.D_TYPE_INT8: "|i1",
    tensor_pb2.D_TYPE_INT32: "<i4",
    tensor_pb2.D_TYPE_INT64: "<i8",
    tensor_pb2.D_TYPE_UINT8: "|u1",
}
"""The types of tensors, as NumPy writes them."""
Form = tuple[str, tuple[int, ...]]
"""The type and the shape of an array as it travels."""


@dataclass
class Sent:
    """A header, and the bytes of its arrays."""

    header: pb.UpdateHeader
    data: bytes
    apart: bool = False
    """Whether it came by StreamUpdate."""
    counted: bool = False
    at: float = field(default_factory=time.monotonic)
    """When it came, in seconds."""

    @classmethod
    def whole(cls, header: pb.UpdateHeader) -> "Sent":
        """Returns an update with all of its bytes in the header."""
        return cls(header, header.arrays.data)

    def add(self, chunk: tensor_pb2.TensorChunk) -> str:
        """Adds a chunk. Returns what is wrong with it, or nothing."""
        if chunk.offset != len(self.data) or not chunk.data:
            return f"a chunk of {len(chunk.data)} bytes at {chunk.offset}; expected bytes at {len(self.data)}"
        if chunk.crc32c != google_crc32c.value(chunk.data):
            return f"the checksum of the chunk at byte {chunk.offset} is wrong"
        self.data += chunk.data
        return ""

    def content(self) -> tuple[object, ...]:
        """Returns what must be the same whenever the update is sent again."""
        header = self.header
        finalists = [each.SerializeToString(deterministic=True) for each in header.finalists]
        measured = header.measurement.SerializeToString(deterministic=True)
        return header.id.round, header.id.phase, header.weight, measured, finalists, self.data

    def arrays(self, expected: dict[str, Form]) -> dict[str, npt.NDArray[Any]]:
        """Returns the arrays as they travelled. Raises Broken if they do not have the expected forms.

        Args:
            expected: The form of each array, by name.
        """
        bundle = self.header.arrays
        if bundle.data and self.apart:
            raise Broken("StreamUpdate has arrays.data; expected chunks")
        if self.data and not bundle.tensors:
            forms = dict(sorted(expected.items()))
            lines = "".join(f"{name} {dtype} {shape}\n" for name, (dtype, shape) in forms.items())
            checked = lines.encode() + self.data
        else:
            forms = {spec.name: (TYPES.get(spec.dtype, "?"), tuple(spec.shape)) for spec in bundle.tensors}
            if len(forms) < len(bundle.tensors):
                raise Broken("two arrays of an update have the same name")
            checked = self.data
            if bundle.total_bytes != len(self.data):
                raise Broken(f"arrays.total_bytes is {bundle.total_bytes}, and {len(self.data)} bytes came")
        if forms != expected:
            raise Broken(f"the update has the arrays {_told(forms)}; expected {_told(expected)}")
        if google_crc32c.value(checked) != bundle.crc32c:
            raise Broken(f"arrays.crc32c is {bundle.crc32c}; expected {google_crc32c.value(checked)}")
        sizes = {name: np.dtype(dtype).itemsize * int(np.prod(shape)) for name, (dtype, shape) in forms.items()}
        if sum(sizes.values()) != len(self.data):
            raise Broken(f"the arrays have {len(self.data)} bytes; expected {sum(sizes.values())}")
        found, start = {}, 0
        for name, (dtype, shape) in forms.items():
            part = self.data[start : start + sizes[name]]
            found[name], start = np.frombuffer(part, dtype).reshape(shape), start + sizes[name]
        return found


def _told(forms: dict[str, Form]) -> str:
    return ", ".join(f"{name} {dtype} {list(shape)}" for name, (dtype, shape) in sorted(forms.items())) or "none"
