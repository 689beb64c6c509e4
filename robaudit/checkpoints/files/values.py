"""Objects of a pickle and tensors of a file, as inert records: nothing here runs or loads code."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STORAGE_DTYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}

ITEM_SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
"""Bytes per element, by torch's name of the dtype."""

_MAX_DIMENSIONS = 64
_MAX_KEY_PARTS = 16


class MalformedPickleError(Exception):
    """The pickle breaks the format's rules, asks for absurd sizes, or is cut off."""


@dataclass(frozen=True, slots=True)
class Global:
    """A name the pickle asks to have imported; it never is."""

    module: str
    name: str

    @property
    def label(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Opaque:
    """An object of any class: the call that would create it, and its contents.

    Attributes:
        label: the name of what would be called.
        arguments: of that call.
        state: what ``__setstate__`` or the attributes would be given.
        items: what would be appended or added to it, or its ``(key, value)`` pairs.
    """

    label: str
    arguments: tuple[Any, ...] = ()
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Bag:
    """A set, as a list: its members are never hashed."""

    items: list[Any]


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """The place of a tensor's elements: ``numel`` elements of ``dtype`` under ``key``."""

    dtype: str
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_SIZES[self.dtype]


@dataclass(frozen=True, eq=False, slots=True)
class SymbolicTensor:
    """The description of a tensor: its storage, the elements in it, and the shape.

    ``offset`` and ``stride`` count elements of ``dtype``.
    """

    shape: tuple[int, ...]
    dtype: str
    storage: Storage
    offset: int
    stride: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a storage in a file. ``crc`` is their CRC-32, if the file has one."""

    file: Path
    start: int
    nbytes: int
    crc: int | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; ``offset`` and ``stride`` count elements of ``dtype`` in its ``span``.

    ``span`` is ``None`` if the elements will not be read, because the file is refused.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int
    stride: tuple[int, ...]
    span: Span | None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its elements, which may be fewer than its span's."""
        return self.numel * ITEM_SIZES[self.dtype]


def stored(tensor: SymbolicTensor, span: Span | None) -> StoredTensor:
    """A tensor of a pickle, with the place of its storage."""
    return StoredTensor(tensor.shape, tensor.dtype, tensor.offset, tensor.stride, span)


def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a tensor whose elements lie in order, without gaps.

    >>> contiguous((4, 3, 2))
    (6, 2, 1)
    """
    return tuple(math.prod(shape[place + 1 :]) for place in range(len(shape)))


def storage_from(pid: Any) -> Storage | Opaque:
    """Read a persistent id, which torch uses for storages.

    Raises:
        MalformedPickleError: it is no id that torch writes.
    """
    if not isinstance(pid, tuple) or not pid or not _is_text(pid[0], "storage"):
        return Opaque("persistent object")
    if len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
        raise MalformedPickleError("a storage is a view of another storage")
    kind, key, numel = pid[1], pid[2], pid[4]
    if isinstance(kind, Global) and kind.name not in STORAGE_DTYPES:
        return Opaque("a storage of another type")  # quantised tensors have their own
    if not isinstance(kind, Global):
        raise MalformedPickleError("a storage has no type")
    if not isinstance(key, str) or not is_count(numel):
        raise MalformedPickleError("a storage has no key or no size")
    return Storage(STORAGE_DTYPES[kind.name], key, numel)


def tensor_from(
    storage: Any, offset: Any, shape: Any, stride: Any, dtype: str | None = None
) -> SymbolicTensor:
    """A tensor of checked sizes, whose last element lies within its storage.

    Raises:
        MalformedPickleError: the sizes are no sizes, or reach beyond the storage.
    """
    shape, stride = _counts(shape), _counts(stride)
    if not isinstance(storage, Storage) or not is_count(offset) or len(shape) != len(stride):
        raise MalformedPickleError("a tensor lacks its storage")
    dtype = dtype or storage.dtype
    if 0 not in shape:
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if (last + 1) * ITEM_SIZES[dtype] > storage.nbytes:
            raise MalformedPickleError("a tensor reaches beyond its storage")
    return SymbolicTensor(shape, dtype, storage, offset, stride)


def checked_key(key: Any) -> Any:
    """A key that is safe to hash, and quick.

    Hashing a deeply nested tuple would overflow the C stack, and hashing a long one, or a number
    of a million digits, again and again would take forever.
    """
    if isinstance(key, tuple):
        if len(key) > _MAX_KEY_PARTS or any(isinstance(part, tuple) for part in key):
            raise MalformedPickleError("a dictionary has nested tuples as keys, or long ones")
        for part in key:
            checked_key(part)
    elif isinstance(key, int):
        if key.bit_length() > 64:
            raise MalformedPickleError("a dictionary has huge numbers as keys")
    elif isinstance(key, list | dict | bytearray):
        raise MalformedPickleError("a dictionary has keys that cannot be keys")
    return key


def is_count(value: Any) -> bool:
    """Whether it is a number of elements that a file could hold."""
    return type(value) is int and 0 <= value < 1 << 62


def _is_text(value: Any, text: str) -> bool:
    return isinstance(value, str) and value == text


def _counts(value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, tuple)
        or len(value) > _MAX_DIMENSIONS
        or not all(map(is_count, value))
    ):
        raise MalformedPickleError("a tensor's shape or strides are no list of sizes")
    return value
