"""Short representations of results that hold thousands of numbers. Imports no torch."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _FEW, _LETTERS = 100, 4, 80


def brief(result: Any) -> str:
    """A dataclass's fields by name, numbers to six digits, tensors and lists by their size.

    Used as the ``__repr__`` of results.

    >>> @dataclasses.dataclass
    ... class Found:
    ...     value: float
    ...     layers: tuple[int, ...]
    ...     __repr__ = brief
    >>> Found(1 / 3, tuple(range(1000)))
    Found(value=0.333333, layers=(0, 1, 2, ... 1000 in all))
    """
    fields = [
        f"{field.name}={shortened(getattr(result, field.name))}"
        for field in dataclasses.fields(result)
        if field.repr and not field.name.startswith("_")
    ]
    return wrapped(type(result).__name__, fields)


def wrapped(name: str, parts: Sequence[str]) -> str:
    """``name(part, part, ...)``, over several lines where it does not fit one."""
    line = f"{name}({', '.join(parts)})"
    if len(line) <= _WIDTH:
        return line
    rows = [textwrap.shorten(part, 2 * _WIDTH, placeholder=" ...") for part in parts]
    return f"{name}(\n  " + ",\n  ".join(rows) + ",\n)"


def shortened(value: Any, depth: int = 0) -> str:
    """A short representation of a value."""
    if isinstance(value, bool) or value is None:
        return repr(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return repr(value if len(value) <= _LETTERS else f"{value[: _LETTERS - 3]}...")
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"<{type(value).__name__} {tuple(value.shape)} {kind}>"
    if isinstance(value, Mapping):
        if len(value) > _FEW or depth:
            names = ", ".join(str(key) for key in list(value)[:2])
            more = ", ..." if len(value) > 2 else ""
            return f"<{len(value)} by name: {names}{more}>" if value else "{}"
        inside = (f"{key!r}: {shortened(one, depth + 1)}" for key, one in value.items())
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list | tuple):
        few = [shortened(one, depth + 1) for one in value[: _FEW if len(value) <= _FEW else 3]]
        if len(value) > _FEW:
            few.append(f"... {len(value)} in all")
        left, right = "[]" if isinstance(value, list) else "()"
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return f"{left}{', '.join(few)}{comma}{right}"
    if dataclasses.is_dataclass(value) and len(dataclasses.fields(value)) >= _FEW:
        return f"<{type(value).__name__}>"
    return textwrap.shorten(repr(value), _LETTERS, placeholder=" ...")
