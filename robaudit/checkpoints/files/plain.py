"""The plain values beside the weights (an epoch, an accuracy, the settings), as text.

NumPy scalars are read from their bytes, without NumPy.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

from robaudit.checkpoints.files.values import Opaque, SymbolicTensor

MAX_ENTRIES = 200
_MAX_TEXT = 200
_MAX_LOOKED_AT = 10_000

# Names of the settings in training scripts.
_SETTINGS = ("args", "config", "cfg", "hparams", "hyper_parameters", "opt", "options", "params")
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_FORMATS = {
    **{f"f{n}": code for n, code in ((2, "e"), (4, "f"), (8, "d"))},
    **{f"i{n}": code for n, code in ((1, "b"), (2, "h"), (4, "i"), (8, "q"))},
    **{f"u{n}": code for n, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))},
    "b1": "?",
}
_KINDS = {
    **{f"float{8 * n}": f"f{n}" for n in (2, 4, 8)},
    **{f"{u}int{8 * n}": f"{u or 'i'}{n}" for u in ("", "u") for n in (1, 2, 4, 8)},
    "bool": "b1",
}


def plain_values(tree: Any, element: Callable[[SymbolicTensor], bytes | None]) -> dict[str, str]:
    """The values beside the state dict by name, settings as ``args.lr``; the first 200.

    Args:
        element: the bytes of a tensor's only element, ``None`` for a larger tensor.
    """
    if not isinstance(tree, dict):
        return {}
    found: dict[str, str] = {}
    for name, value in _named(tree):
        settings = _entries(value) if name in _SETTINGS else None
        entries = [(name, value)] if settings is None else _inner(name, settings)
        for key, entry in entries:
            text = _text(entry, element)
            if text is not None and len(found) < MAX_ENTRIES:
                found[key] = text
    return found


def _named(entries: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
    for looked_at, (name, value) in enumerate(entries.items()):
        if looked_at >= _MAX_LOOKED_AT:
            return
        if isinstance(name, str) and len(name) <= _MAX_TEXT:
            yield name, value


def _inner(name: str, settings: dict[Any, Any]) -> list[tuple[str, Any]]:
    return [(f"{name}.{key}", value) for key, value in _named(settings)]


def _entries(value: Any) -> dict[Any, Any] | None:
    """Settings are a dictionary, or an object that has its attributes in one."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Opaque) and isinstance(value.state, dict):
        return value.state
    return None


def _text(value: Any, element: Callable[[SymbolicTensor], bytes | None]) -> str | None:
    if isinstance(value, SymbolicTensor) and not value.shape:
        value = _unpacked(_KINDS.get(value.dtype, ""), "<", element(value))
    elif isinstance(value, Opaque):
        value = _number(value)
    if isinstance(value, bool | float):
        return str(value)
    if isinstance(value, int) and value.bit_length() <= 64:
        return str(value)
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT else None


def _number(value: Opaque) -> float | int | bool | None:
    """A NumPy scalar's value: its dtype says how to read its bytes."""
    if value.label not in _SCALARS or len(value.arguments) != 2:
        return None
    dtype, data = value.arguments
    if not isinstance(dtype, Opaque) or dtype.label != "numpy.dtype" or not dtype.arguments:
        return None
    kind = dtype.arguments[0]
    order = dtype.state[1] if isinstance(dtype.state, tuple) and len(dtype.state) > 1 else "<"
    if not isinstance(kind, str) or not isinstance(data, bytes) or order not in ("<", ">", "|"):
        return None
    return _unpacked(kind, "<" if order == "|" else order, data)


def _unpacked(kind: str, order: str, data: bytes | None) -> float | int | bool | None:
    form = order + _FORMATS.get(kind, "")
    if data is None or len(form) < 2 or struct.calcsize(form) != len(data):
        return None
    number: float | int | bool = struct.unpack(form, data)[0]
    return number
