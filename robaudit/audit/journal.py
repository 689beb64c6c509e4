"""Finished pieces of an audit on disk, from which an interrupted audit is continued."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from robaudit.atomic_write import DRAFT, atomic_write, clear_drafts
from robaudit.errors import UsageError

_KEY = "journal.json"


@dataclass(frozen=True)
class Journal:
    """A folder with one file per finished piece.

    Pieces are written to a draft and then renamed, so that a piece is never incomplete, whenever
    the process ends.
    """

    folder: Path

    def piece(self, name: str, compute: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The piece ``name`` (letters, digits and dashes), from the folder or computed and kept.

        Raises:
            UsageError: it cannot be written; the pieces before it are kept.
        """
        path = self.folder / f"{name}.safetensors"
        try:
            return load_file(path)
        except FileNotFoundError:
            pass
        except SafetensorError:  # not written by robaudit
            path.unlink()
        piece = {key: value.cpu().contiguous() for key, value in compute().items()}
        _write(path, save(piece))
        return piece


def open_journal(folder: Path, key: Mapping[str, Any]) -> Journal:
    """Create the journal in ``folder``, or continue the one that is there.

    Args:
        key: what the pieces depend on, JSON-serialisable; pieces of different keys are never mixed.

    Raises:
        UsageError: the folder holds another run's pieces or other files, or cannot be written.
    """
    ours: dict[str, Any] = json.loads(json.dumps(key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        clear_drafts(folder)
        entries = list(folder.iterdir())
    except OSError as error:
        raise _unwritable(folder, error) from error
    path = folder / _KEY
    if path not in entries:
        if any(not entry.name.startswith(DRAFT) for entry in entries):
            raise UsageError(f"{folder} holds other files than a run's state", "Name a new folder.")
        _write(path, json.dumps(ours, indent=2).encode())
        return Journal(folder)
    try:
        theirs = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}", "Name a new folder.") from None
    theirs = theirs if isinstance(theirs, dict) else {}
    differing = [
        f"{name} {_short(theirs.get(name))} there, {_short(ours.get(name))} here"
        for name in {**ours, **theirs}
        if ours.get(name) != theirs.get(name)
    ]
    if differing:
        raise UsageError(
            f"{folder} holds the state of another run: {'; '.join(differing)}",
            "Name a new folder, or run what was begun there.",
        )
    return Journal(folder)


def threads_kept(folder: Path) -> int | None:
    """The number of threads recorded in the journal in ``folder``; ``None`` without a journal."""
    try:
        threads = json.loads((folder / _KEY).read_bytes())["threads"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return threads if isinstance(threads, int) and threads > 0 else None


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the parameters and buffers with their names."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        flat = tensor.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    try:
        atomic_write(path, data)
    except OSError as error:
        raise _unwritable(path.parent, error) from error


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 16 else f"{text[:12]}..."


def _unwritable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        f"cannot keep state in {folder}: {error.strerror or error}",
        "What was finished is kept: make room, or name another folder.",
    )
