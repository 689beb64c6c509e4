"""Reads weights from a file that was judged first, and only through torch's restricted loader."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from robaudit.checkpoints.archives import check_records
from robaudit.checkpoints.container import Container, read_container
from robaudit.checkpoints.contents import SAVE_STATE_DICT, shown
from robaudit.checkpoints.members import common_prefix, find_state_dict
from robaudit.checkpoints.severity import NUMPY_STAND_INS
from robaudit.errors import CheckpointError

_MAX_EXPANDED = 1 << 28
_CHUNK = 1 << 24


@dataclass(frozen=True)
class LoadedWeights:
    """A state dict on the CPU, with finite numbers, its wrapper ``prefix`` taken off its keys.

    ``member``, ``format``, ``sha256`` and ``metadata`` are those of
    :class:`~robaudit.checkpoints.container.Container`.
    """

    state_dict: dict[str, Tensor]
    member: str
    format: str
    sha256: str | None
    metadata: Mapping[str, str]
    prefix: str
    container: Container


def read_state_dict(path: str | Path, *, hash: bool | None = None) -> LoadedWeights:
    """Read the weights in a file of ``torch.save`` or a safetensors file. Runs nothing in it.

    Args:
        path: the file.
        hash: compute the SHA-256; by default for files up to 256 MB.

    Raises:
        CheckpointError: the file is missing, damaged, asks for more than tensors, holds no or
            several state dicts, or weights that are not finite.
    """
    path = Path(path)
    name = shown(path, 200)
    before = _identity(path)
    container = read_container(path, hash=hash)
    if container.refusal is not None:
        raise container.refusal.error()
    _check_sizes(container, name)
    member, state = _load(container, name)
    _check_listing(container, member, state, name)
    if _identity(path) != before:
        raise CheckpointError(f"{name} changed while it was read", "Try again once it is written.")
    _check_finite(state, name)
    prefix = common_prefix(state)
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    return LoadedWeights(
        state, member, container.format, container.sha256, container.metadata, prefix, container
    )


def _identity(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _check_sizes(container: Container, name: str) -> None:
    # A tensor with zero strides claims more elements than the file has; the first computation on
    # it would allocate them all.
    elements = sum(_count(info.shape) for info in container.tensors)
    if elements > max(_MAX_EXPANDED, container.size):
        raise CheckpointError(
            f"{name} has {container.size} bytes but claims {elements} weights", SAVE_STATE_DICT
        )


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _load(container: Container, name: str) -> tuple[str, dict[str, Tensor]]:
    try:
        if container.format == "safetensors":
            return "", load_file(container.path)
        with container.path.open("rb") as file:
            if container.format == "torch-zip":
                check_records(file, os.fstat(file.fileno()).st_size, name)
        tree = _load_pickled(container.path)
    except CheckpointError:
        raise
    except Exception as error:  # whatever a loader trips over, the file is what is wrong
        line = next(iter(str(error).splitlines()), "")
        raise CheckpointError(
            f"{name}: torch cannot read the file: {type(error).__name__}: {shown(line, 160)}",
            "It may be damaged: download it again, or save it again with a current torch.",
        ) from error
    return find_state_dict(tree, Tensor, name)


def _load_pickled(path: Path) -> Any:
    stand_ins: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        type(name, (_Inert,), {"__module__": module, "__qualname__": name})
        for module, name in NUMPY_STAND_INS
    ]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins):
        warnings.simplefilter("ignore")  # the loader's remarks on formats are not the user's affair
        return torch.load(path, map_location="cpu", weights_only=True)


class _Inert:
    """Stands in for NumPy's numbers beside the weights; takes anything and is nothing."""

    def __new__(cls, *_: object) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


def _check_listing(container: Container, member: str, state: dict[str, Tensor], name: str) -> None:
    """What was judged must be what was loaded: two readers of one file can be made to differ."""
    listed = {info.name: (info.shape, info.dtype) for info in container.tensors}
    loaded = {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch."))
        for key, value in state.items()
    }
    if member != container.member or listed != loaded:
        raise CheckpointError(
            f"{name}: torch reads other tensors from the file than were found in it",
            "The file is damaged or made to deceive: get the weights as .safetensors.",
        )


def _check_finite(state: dict[str, Tensor], name: str) -> None:
    bad = {key: count for key, value in state.items() if (count := _nonfinite(value))}
    if bad:
        first = ", ".join(shown(key) for key in list(bad)[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        count = sum(bad.values())
        raise CheckpointError(
            f"{name}: {count} {'weights are' if count > 1 else 'weight is'} not finite, "
            f"in {first}{more}",
            "Training has diverged: use an earlier checkpoint.",
        )


def _nonfinite(value: Tensor) -> int:
    if not (value.is_floating_point() or value.is_complex()):
        return 0
    if value.is_complex():
        value = torch.view_as_real(value.resolve_conj())
    flat = value.reshape(-1)
    bad = 0
    # In pieces, so that the check needs little memory beside the weights.
    for start in range(0, flat.numel(), _CHUNK):
        piece = flat[start : start + _CHUNK]
        finite = torch.isfinite(piece.float() if piece.element_size() < 4 else piece)
        bad += piece.numel() - int(finite.sum())
    return bad
