"""Converts arrays to and from the messages of tensor.proto: inside one message, or in chunks.

Little-endian, row-major, and checked: element counts, checksums, the order of chunks, and that every float is finite.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import google_crc32c
import numpy as np

from fedbbpt.errors import ChecksumMismatch, InvalidTensor, MessageTooLarge
from fedbbpt.limits import CHUNK_BYTES, MAX_RANK, MAX_TENSORS
from fedbbpt.types import Array, Arrays, Forms
from fedbbpt.v1 import tensor_pb2 as pb

_DTYPES: Mapping["pb.DType.ValueType", np.dtype[Any]] = {
    pb.D_TYPE_FLOAT32: np.dtype("<f4"),
    pb.D_TYPE_FLOAT64: np.dtype("<f8"),
    pb.D_TYPE_FLOAT16: np.dtype("<f2"),
    pb.D_TYPE_INT8: np.dtype("i1"),
    pb.D_TYPE_INT32: np.dtype("<i4"),
    pb.D_TYPE_INT64: np.dtype("<i8"),
    pb.D_TYPE_UINT8: np.dtype("u1"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def _code(array: Array) -> "pb.DType.ValueType":
    try:
        return _CODES[array.dtype.newbyteorder("<") if array.dtype.itemsize > 1 else array.dtype]
    except KeyError:
        raise InvalidTensor(f"dtype {array.dtype} cannot be sent", fix=f"one of {sorted(map(str, _CODES))}") from None


def _bytes(array: Array) -> bytes:
    return np.ascontiguousarray(array, _DTYPES[_code(array)]).tobytes()


def _dtype(code: "pb.DType.ValueType", where: str) -> np.dtype[Any]:
    if code not in _DTYPES:
        raise InvalidTensor(f"dtype {code} is unknown", where=where, fix=f"one of {sorted(_DTYPES)}")
    return _DTYPES[code]


def _shape(dims: Sequence[int], where: str) -> tuple[int, ...]:
    shape = tuple(dims[: MAX_RANK + 1])  # a message can hold millions of sizes
    if len(shape) > MAX_RANK or any(dim < 0 for dim in shape):
        raise InvalidTensor(f"shape {shape} is impossible", where=where, fix=f"at most {MAX_RANK} sizes, none negative")
    return shape


def _array(data: bytes | memoryview, dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidTensor(f"{len(data)} bytes for shape {shape} of {dtype}", where=where, fix=f"{expected} bytes")
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:  # the array is empty, but its other sizes are too large for numpy
        raise InvalidTensor(f"shape {shape} is impossible: {error}", where=where) from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidTensor("NaN or infinite elements", where=where, fix="finite numbers")
    return array


def to_message(array: Array) -> pb.Tensor:
    """Returns the message of an array. Raises InvalidTensor for a type that cannot be sent."""
    return pb.Tensor(dtype=_code(array), shape=array.shape, data=_bytes(array))


def from_message(message: pb.Tensor, *, where: str) -> Array:
    """Returns a read-only array. Raises InvalidTensor, which names `where`."""
    dtype = _dtype(message.dtype, where)
    return _array(message.data, dtype, _shape(message.shape, where), where)


def bundle(arrays: Arrays) -> tuple[pb.TensorBundle, bytes]:
    """Returns the bundle of named arrays, and the bytes that follow it in chunks: none if it holds them itself."""
    data = b"".join(_bytes(array) for array in arrays.values())
    specs = [pb.TensorSpec(name=name, dtype=_code(array), shape=array.shape) for name, array in arrays.items()]
    announced = pb.TensorBundle(tensors=specs, total_bytes=len(data), crc32c=google_crc32c.value(data))
    if len(data) > CHUNK_BYTES:
        return announced, data
    announced.data = data
    return announced, b""


def unlabelled(arrays: Arrays) -> pb.TensorBundle:
    """Returns a bundle without descriptions of its arrays, for a receiver that knows them. It holds their bytes.

    The checksum covers the descriptions, so that a receiver with others notices.
    """
    ordered = {name: arrays[name] for name in sorted(arrays)}
    data = b"".join(_bytes(array) for array in ordered.values())
    labels = _labels({name: (_DTYPES[_code(array)], array.shape) for name, array in ordered.items()})
    return pb.TensorBundle(data=data, crc32c=google_crc32c.value(labels + data))


def labelled(sent: pb.TensorBundle, forms: Forms, limit_bytes: int) -> dict[str, Array]:
    """Returns the arrays of a bundle without descriptions. Raises MessageTooLarge, InvalidTensor, ChecksumMismatch."""
    if len(sent.data) > limit_bytes:
        raise MessageTooLarge(f"{len(sent.data)} bytes of arrays", where="arrays", fix=f"at most {limit_bytes}")
    places, total, labels = _layout(tuple(forms.items()))
    data = sent.data
    if len(data) != total:
        fix = f"{total} bytes, of {', '.join(name for name, _, _, _ in places) or 'no arrays'}"
        raise InvalidTensor(f"{len(data)} bytes of arrays", where="arrays.data", fix=fix)
    if google_crc32c.value(labels + data) != sent.crc32c:
        raise ChecksumMismatch("the arrays were corrupted in transit, or are others", where="arrays.crc32c")
    return {name: _array(data[place], dtype, shape, name) for name, dtype, shape, place in places}


@lru_cache(maxsize=16)
def _layout(
    forms: tuple[tuple[str, tuple[np.dtype[Any], tuple[int, ...]]], ...],
) -> tuple[Sequence[tuple[str, np.dtype[Any], tuple[int, ...], slice]], int, bytes]:
    """Returns where the arrays of a bundle without descriptions are, its size in bytes, and the descriptions."""
    ordered, places, offset = dict(sorted(forms)), [], 0
    for name, (dtype, shape) in ordered.items():
        size = math.prod(shape) * dtype.itemsize
        places.append((name, dtype, shape, slice(offset, offset + size)))
        offset += size
    return places, offset, _labels(ordered)


def _labels(forms: Forms) -> bytes:
    return "".join(f"{name} {dtype.str} {shape}\n" for name, (dtype, shape) in forms.items()).encode()


def chunks(data: bytes) -> Iterator[pb.TensorChunk]:
    """Yields the bytes in chunks of CHUNK_BYTES."""
    for offset in range(0, len(data), CHUNK_BYTES):
        yield chunk(data[offset : offset + CHUNK_BYTES], offset)


def chunk(data: bytes, offset: int) -> pb.TensorChunk:
    """Returns a chunk that starts at byte `offset` of the whole."""
    return pb.TensorChunk(offset=offset, data=data, crc32c=google_crc32c.value(data))


def checked(chunk: pb.TensorChunk, offset: int) -> bytes:
    """Returns a chunk's bytes. Raises InvalidTensor if it does not start at `offset`, ChecksumMismatch."""
    if chunk.offset != offset or not chunk.data:
        raise InvalidTensor(f"a chunk at byte {chunk.offset}", where="chunk.offset", fix=f"{offset}")
    if google_crc32c.value(chunk.data) != chunk.crc32c:
        raise ChecksumMismatch(f"the chunk at byte {chunk.offset} was corrupted in transit", where="chunk.crc32c")
    return chunk.data


class Assembler:
    """Assembles the arrays of a bundle from its own bytes, or from the chunks that follow it."""

    def __init__(self, announced: pb.TensorBundle, limit_bytes: int) -> None:
        """Raises MessageTooLarge before any chunk is read, InvalidTensor if the announced sizes do not add up."""
        if announced.total_bytes > limit_bytes:
            raise MessageTooLarge(
                f"{announced.total_bytes} bytes of arrays", where="arrays", fix=f"at most {limit_bytes}"
            )
        if len(announced.tensors) > MAX_TENSORS:
            raise InvalidTensor(f"{len(announced.tensors)} tensors", where="arrays", fix=f"at most {MAX_TENSORS}")
        self._checksum, self._data, self._total = announced.crc32c, bytearray(announced.data), announced.total_bytes
        self._specs = [
            (spec.name, _dtype(spec.dtype, spec.name), _shape(spec.shape, spec.name)) for spec in announced.tensors
        ]
        needed = sum(math.prod(shape) * dtype.itemsize for _, dtype, shape in self._specs)
        if needed != self._total:
            raise InvalidTensor(f"{self._total} bytes announced for tensors of {needed}", where="arrays.total_bytes")
        if len(self._data) not in (0, needed):
            raise InvalidTensor(f"{len(self._data)} bytes", where="arrays.data", fix=f"all {needed} bytes, or none")
        if len({name for name, _, _ in self._specs}) < len(self._specs):
            raise InvalidTensor("two tensors have one name", where="arrays.tensors")

    @property
    def complete(self) -> bool:
        """True once all bytes have been added."""
        return len(self._data) == self._total

    def add(self, chunk: pb.TensorChunk) -> None:
        """Appends a chunk. Raises InvalidTensor, ChecksumMismatch."""
        if len(self._data) + len(chunk.data) > self._total:
            raise InvalidTensor("more bytes than announced", where="chunk.data", fix=f"{self._total} in all")
        self._data += checked(chunk, len(self._data))

    def arrays(self) -> dict[str, Array]:
        """Returns the arrays. Raises InvalidTensor for missing bytes or NaN, ChecksumMismatch for changed bytes."""
        if not self.complete:
            raise InvalidTensor(f"{len(self._data)} bytes of arrays", where="arrays", fix=f"{self._total}")
        data = bytes(self._data)
        if google_crc32c.value(data) != self._checksum:
            raise ChecksumMismatch("the arrays were corrupted in transit", where="arrays.crc32c")
        arrays: dict[str, Array] = {}
        offset = 0
        for name, dtype, shape in self._specs:
            size = math.prod(shape) * dtype.itemsize
            arrays[name] = _array(memoryview(data)[offset : offset + size], dtype, shape, name)
            offset += size
        return arrays
