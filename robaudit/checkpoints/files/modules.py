"""State dicts of whole modules in a pickle, without building the modules.

A pickled ``nn.Module`` is a record whose state is the module's attributes; a TorchScript module is
one whose state is its attributes directly. Both are walked with bounds, because a pickle of a few
bytes can describe a tree of exponential size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from robaudit.checkpoints.files.members import Member
from robaudit.checkpoints.files.values import Bag, MalformedPickleError, Opaque, SymbolicTensor

_MAX_DEPTH = 64
_MAX_MODULES = 100_000
_MAX_NAME = 1000


@dataclass
class Walk:
    """The budget of a walk over modules; one for each state dict."""

    left: int = _MAX_MODULES

    def step(self, name: str, depth: int) -> None:
        """Count one entry.

        Raises:
            MalformedPickleError: there are too many, it is too deep, or its name is too long.
        """
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH or len(name) > _MAX_NAME:
            raise MalformedPickleError("a module has too many parts")


def is_module(value: Any) -> bool:
    """Whether a record is a pickled ``nn.Module``."""
    return isinstance(value, Opaque) and _attributes(value) is not None


def module_member(module: Opaque, path: str) -> Member:
    """The state dict of a pickled ``nn.Module``, as its ``state_dict()`` would give it.

    Raises:
        MalformedPickleError: the module is too large or malformed.
    """
    found = dict(_walk(module, "", 0, Walk()))
    tensors = {name: value for name, value in found.items() if isinstance(value, SymbolicTensor)}
    unreadable = {name: value.label for name, value in found.items() if isinstance(value, Opaque)}
    return Member(path, tensors, unreadable=unreadable, module=module.label)


def _attributes(module: Opaque) -> Mapping[Any, Any] | None:
    attributes = module.state
    if not isinstance(attributes, dict):
        return None
    parts = (attributes.get(key) for key in ("_parameters", "_buffers", "_modules"))
    return attributes if all(isinstance(part, dict) for part in parts) else None


def _walk(module: Opaque, prefix: str, depth: int, walk: Walk) -> Iterator[tuple[str, Any]]:
    attributes = _attributes(module)
    if attributes is None:
        raise MalformedPickleError(f"{prefix.rstrip('.')[:80]!r} of a module is no module")
    hidden = _texts(attributes.get("_non_persistent_buffers_set"))
    for kind in ("_parameters", "_buffers"):
        for name, value in attributes[kind].items():
            if isinstance(name, str) and not (kind == "_buffers" and name in hidden):
                walk.step(prefix + name, depth)
                yield prefix + name, value
    for name, child in attributes["_modules"].items():
        if isinstance(name, str) and child is not None:
            walk.step(prefix + name, depth)
            if not isinstance(child, Opaque):
                raise MalformedPickleError(f"{(prefix + name)[:80]!r} of a module is no module")
            yield from _walk(child, f"{prefix}{name}.", depth + 1, walk)


def _texts(value: Any) -> frozenset[str]:
    items = value.items if isinstance(value, Bag) else []
    return frozenset(item for item in items if isinstance(item, str))
