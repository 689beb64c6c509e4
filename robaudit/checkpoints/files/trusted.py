"""Unpickles a file whose hash the user gave: the only place where a file is run."""

from __future__ import annotations

import hashlib
import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.members import Member, choose_member, find_members
from robaudit.errors import CheckpointError, error_line


def load_trusted(
    path: Path, sha256: str, *, member: str | None, weights: str | None
) -> tuple[Member, nn.Module | None, tuple[str, ...]]:
    """Unpickle a file, which runs any code in it.

    Args:
        sha256: of the file; the bytes that are run are hashed again in memory.

    Returns:
        the state dict, the network where the file holds it whole, and remarks.

    Raises:
        CheckpointError: the bytes are others, they cannot be loaded here, or hold no state dict.
    """
    name = shown(path, 200)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CheckpointError(f"{name} changed while it was read", "Try again once it is written.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about formats
            tree = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)
        found = find_members(tree, _state_of)
    except Exception as error:  # the file's own code runs, and can raise anything
        raise CheckpointError(
            f"{name}: running the file failed: {shown(error_line(error), 200)}",
            "The code it came from must be importable: run where it is, or set PYTHONPATH.",
        ) from error
    if not found:
        raise CheckpointError(f"{name}: the file holds no state dict", "Save model.state_dict().")
    chosen, remarks = choose_member(found, name, member=member, weights=weights)
    module = _at(tree, chosen.path)
    whole = module if isinstance(module, nn.Module) else None
    return chosen, whole, ("the file was run, as --trust-pickle asks", *remarks)


def _state_of(value: Any, path: str) -> Member | None:
    if isinstance(value, nn.Module):
        return Member(path, value.state_dict(), module=type(value).__name__)
    if not isinstance(value, dict):
        return None
    own = {k: v for k, v in value.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return Member(path, own) if own else None


def _at(tree: Any, path: str) -> Any:
    """The object at a member's path, if that is a plain chain of keys."""
    for key in path.split(".") if path else []:
        if not isinstance(tree, dict) or key not in tree:
            return None
        tree = tree[key]
    return tree
