"""Where in a file the state dict is, and which prefix its keys share; for any kind of tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from robaudit.errors import CheckpointError

MEMBERS = ("state_dict", "model_state_dict", "model", "net")
PREFIXES = ("module.", "_orig_mod.")
_DEPTH = 3


def find_state_dict(tree: Any, tensor: type, source: str) -> tuple[str, dict[str, Any]]:
    """Find the state dict in what a file holds.

    Args:
        tree: the file's object: dictionaries and lists with tensors in them.
        tensor: the class that tensors have in ``tree``.
        source: the file's name, for messages.

    Returns:
        the path to it (``""`` for the whole file, ``"state_dict"``, ``"state_dict[0]"``), and its
        tensors by name.

    Raises:
        CheckpointError: there is none, or there are several and it would be a guess which is meant.
    """
    found = _candidates(tree, tensor, "", _DEPTH)
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(repr(member) for member, _ in found[:5])
        raise CheckpointError(
            f"{source}: the file holds {len(found)} state dicts ({places})",
            "Save the one to audit to a file of its own.",
        )
    if not isinstance(tree, dict):
        raise CheckpointError(
            f"{source}: the file holds no state dict",
            "Save model.state_dict(), a dictionary of tensors by name.",
        )
    keys = ", ".join(repr(key)[:60] for key in list(tree)[:8] if isinstance(key, str))
    raise CheckpointError(
        f"{source}: the file holds no state dict" + (f"; it has {keys}" if keys else ""),
        f"Save the state dict as the whole file or under {MEMBERS[0]!r}.",
    )


def common_prefix(names: Iterable[str]) -> str:
    """The wrapper prefixes (``module.``, ``_orig_mod.``) that every name starts with.

    >>> common_prefix(["module._orig_mod.fc.weight", "module._orig_mod.fc.bias"])
    'module._orig_mod.'
    """
    names = list(names)
    prefix = ""
    while names:
        for wrapper in PREFIXES:
            if all(name.startswith(prefix + wrapper) for name in names):
                prefix += wrapper
                break
        else:
            break
    return prefix


def _candidates(
    tree: Any, tensor: type, member: str, depth: int
) -> list[tuple[str, dict[str, Any]]]:
    if isinstance(tree, list | tuple):
        return [
            found
            for place, entry in enumerate(tree)
            if isinstance(entry, dict)
            for found in _candidates(entry, tensor, f"{member}[{place}]", depth - 1)
        ]
    if not isinstance(tree, dict) or depth < 0:
        return []
    named = [
        found
        for key in MEMBERS
        if isinstance(tree.get(key), dict | list | tuple)
        for found in _candidates(tree[key], tensor, f"{member}.{key}".lstrip("."), depth - 1)
    ]
    if named:
        return named
    own = {k: v for k, v in tree.items() if isinstance(k, str) and isinstance(v, tensor)}
    return [(member, own)] if own else []
