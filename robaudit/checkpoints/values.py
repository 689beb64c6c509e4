"""What a pickle talks about, as inert records: nothing here can run, load or allocate anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
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


class MalformedPickleError(Exception):
    """The pickle breaks the format's rules, asks for absurd sizes, or is cut off."""


@dataclass(frozen=True)
class Global:
    """A name the pickle asks to have imported; it never is."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class Opaque:
    """The result of a call that is not made, or any value whose inside does not matter."""

    label: str


@dataclass(frozen=True, eq=False)
class Storage:
    """The place of a tensor's elements: ``numel`` elements of ``dtype`` under ``key``."""

    dtype: str
    key: str
    numel: int

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_SIZES[self.dtype]


@dataclass(frozen=True, eq=False)
class SymbolicTensor:
    """A tensor's description: shape and dtype, and which elements of which storage it shows."""

    shape: tuple[int, ...]
    dtype: str
    storage: Storage


def storage_from(pid: Any) -> Storage | Opaque:
    """Read a persistent id, which torch uses for storages.

    Raises:
        MalformedPickleError: it is no id that torch writes.
    """
    if not isinstance(pid, tuple) or not pid or pid[0] != "storage":
        return Opaque("persistent object")
    if len(pid) not in (5, 6) or (len(pid) == 6 and pid[5] is not None):
        raise MalformedPickleError("a storage is a view of another storage")
    kind, key, numel = pid[1], pid[2], pid[4]
    if not isinstance(kind, Global) or kind.name not in STORAGE_DTYPES:
        raise MalformedPickleError("a storage has an unknown type")
    if not isinstance(key, str) or not _is_count(numel):
        raise MalformedPickleError("a storage has no key or no size")
    return Storage(STORAGE_DTYPES[kind.name], key, numel)


def call(function: Any, arguments: Any) -> Any:
    """What ``function(*arguments)`` describes; an :class:`Opaque` for all but a few known names.

    Raises:
        MalformedPickleError: a known function gets arguments that torch never gives it.
    """
    for _ in range(4):  # _rebuild_from_type_v2 wraps another call, at most once in real files
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            return Opaque("object")
        if function.name != "_rebuild_from_type_v2" or len(arguments) != 4:
            break
        function, arguments = arguments[0], arguments[2]
    else:
        raise MalformedPickleError("calls are nested too deeply")
    label = f"{function.module}.{function.name}"
    known = _KNOWN.get(label)
    return known(arguments) if known else Opaque(label)


def checked_key(key: Any) -> Any:
    """A key that is safe to hash: hashing a deeply nested tuple would overflow the C stack."""
    if isinstance(key, tuple):
        if any(isinstance(part, tuple) for part in key):
            raise MalformedPickleError("a dictionary has nested tuples as keys")
        return key
    if isinstance(key, list | dict):
        raise MalformedPickleError("a dictionary has keys that cannot be keys")
    return key


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, tuple) or len(value) > 64 or not all(map(_is_count, value)):
        raise MalformedPickleError("a tensor's shape or strides are no list of sizes")
    return value


def _tensor(arguments: tuple[Any, ...], dtype: str | None = None) -> SymbolicTensor:
    if len(arguments) < 4:
        raise MalformedPickleError("a tensor lacks its shape")
    storage, offset, shape, stride = arguments[:4]
    shape, stride = _counts(shape), _counts(stride)
    if not isinstance(storage, Storage) or not _is_count(offset) or len(shape) != len(stride):
        raise MalformedPickleError("a tensor lacks its storage")
    dtype = dtype or storage.dtype
    if 0 not in shape:
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if (last + 1) * ITEM_SIZES[dtype] > storage.nbytes:
            raise MalformedPickleError("a tensor reaches beyond its storage")
    return SymbolicTensor(shape, dtype, storage)


def _tensor_v3(arguments: tuple[Any, ...]) -> SymbolicTensor:
    dtype = arguments[6] if len(arguments) > 6 else None
    if not isinstance(dtype, Global) or dtype.name not in ITEM_SIZES:
        raise MalformedPickleError("a tensor has an unknown dtype")
    return _tensor(arguments, dtype.name)


def _first(arguments: tuple[Any, ...]) -> Any:
    if not arguments:
        raise MalformedPickleError("a call lacks its argument")
    return arguments[0]


def _mapping(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    if not arguments:
        return {}
    pairs = arguments[0]
    if isinstance(pairs, dict):
        return dict(pairs)
    if not isinstance(pairs, list | tuple):
        raise MalformedPickleError("a dictionary is made of something that is no list of pairs")
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs):
        raise MalformedPickleError("a dictionary is made of something that is no list of pairs")
    return {checked_key(pair[0]): pair[1] for pair in pairs}


def _set(arguments: tuple[Any, ...]) -> Opaque:
    members = arguments[0] if arguments else ()
    if isinstance(members, list | tuple):
        for member in members:
            checked_key(member)
    return Opaque("set")


_KNOWN: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch.nn.parameter.Parameter": _first,
    "torch.Size": _first,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "builtins.set": _set,
}
