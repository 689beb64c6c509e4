"""Loads the weights of a checkpoint, without running the file unless its hash is given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from robaudit.checkpoints.files.container import (
    Container,
    read_container,
    readable,
    regular_size,
)
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hashing import digest_of_files
from robaudit.checkpoints.files.hf_folder import find_folder
from robaudit.checkpoints.files.materialise import materialise
from robaudit.checkpoints.files.trusted import load_trusted
from robaudit.errors import CheckpointError, UsageError, error_line

_CHUNK = 1 << 24
_MAX_FILES = 2000
_PICKLED = ("torch-zip", "torch-legacy", "pickle")


@dataclass(frozen=True, kw_only=True)
class LoadedWeights(Container):
    """A checkpoint with its state dict in memory.

    Attributes:
        state_dict: on the CPU, with finite numbers, under the keys it has in the file.
        module: the network itself, where a trusted file holds it whole.
    """

    state_dict: dict[str, Tensor]
    module: nn.Module | None = None


def read_state_dict(
    path: str | Path,
    *,
    hash: bool | None = None,
    member: str | None = None,
    weights: str | None = None,
    sha256: str | None = None,
    trust_pickle: bool = False,
) -> LoadedWeights:
    """Load the weights of a checkpoint of any known format, without running the file.

    Args:
        path: the file, or a Hugging Face folder.
        hash: compute the SHA-256; by default for checkpoints up to 256 MB.
        member: the state dict to choose, if there are several.
        weights: ``raw``, ``ema`` or ``swa``: the weights as trained, or a running average.
        sha256: the hash it must have, compared before anything is parsed.
        trust_pickle: unpickle the file if it cannot be read otherwise; requires ``sha256``.

    Raises:
        CheckpointError: the file is missing, damaged, another than ``sha256`` says, asks for more
            than can be read without running it, holds no state dict, or weights that are not
            finite.
        UsageError: there is no such member; ``trust_pickle`` without ``sha256``.
    """
    path = Path(path)
    name = shown(path, 200)
    before = _identity(path)
    known = _checked_hash(path, name, sha256, trust_pickle)
    container = read_container(path, hash=False if known else hash, member=member, weights=weights)
    if known is not None:
        container = replace(container, sha256=known)
    module, refusal = None, container.refusal
    if refusal is None:
        state = _materialised(container, name)
    elif trust_pickle and known is not None and container.format in _PICKLED:
        chosen, module, remarks = load_trusted(path, known, member=member, weights=weights)
        state = dict(chosen.tensors)
        container = replace(container, member=chosen.path, remarks=remarks)
    else:
        raise refusal.error()
    if _identity(path) != before:
        raise CheckpointError(f"{name} changed while it was read", "Try again once it is written.")
    check_finite(state, name)
    return LoadedWeights(**vars(container), state_dict=state, module=module)


def _checked_hash(path: Path, name: str, sha256: str | None, trust_pickle: bool) -> str | None:
    """The file's hash, if one is asked for."""
    if sha256 is None:
        if trust_pickle:
            raise UsageError(
                "--trust-pickle runs the program that the file is, so it takes --sha256 as well: "
                "the hash of the file that you trust, from where it was published",
                f"Compare with: robaudit inspect --hash {name}",
            )
        return None
    wanted = sha256.strip().lower().removeprefix("sha256:")
    if not re.fullmatch("[0-9a-f]{64}", wanted):
        raise UsageError(f"--sha256 {shown(sha256)}: a SHA-256 has 64 hexadecimal digits")
    with readable(name):
        files = find_folder(path).shards if path.is_dir() else (path,)
        for file in files:
            regular_size(file)
        found = digest_of_files(files)
    if found != wanted:
        raise CheckpointError(
            f"{name} has the SHA-256 {found}, not {wanted}",
            "It is not the file you meant: download it again, or correct --sha256.",
        )
    return found


def _identity(path: Path) -> tuple[tuple[int, int, int], ...]:
    """Changes if the file does, or any file of a folder."""
    try:
        files = sorted(islice(path.iterdir(), _MAX_FILES)) if path.is_dir() else [path]
        found = [file.stat() for file in files]
    except (OSError, ValueError):
        return ()
    return tuple((status.st_ino, status.st_size, status.st_mtime_ns) for status in found)


def _materialised(container: Container, name: str) -> dict[str, Tensor]:
    try:
        return materialise(container.elements)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"{name} cannot be read: {shown(error_line(error), 200)}",
            "It may be damaged: download it again.",
        ) from error


def check_finite(state: Mapping[str, Tensor], name: str) -> None:
    """Refuse weights that are not finite.

    Raises:
        CheckpointError: some are infinite or NaN.
    """
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
        value = torch.view_as_real(value)
    # Without the repetitions of an expanded tensor, which could exhaust memory.
    for dimension, stride in enumerate(value.stride()):
        if stride == 0 and value.shape[dimension] > 1:
            value = value.narrow(dimension, 0, 1)
    flat = value.reshape(-1)
    bad = 0
    # In pieces, so that the check needs little memory beside the weights.
    for start in range(0, flat.numel(), _CHUNK):
        piece = flat[start : start + _CHUNK]
        finite = torch.isfinite(piece.float() if piece.element_size() < 4 else piece)
        bad += piece.numel() - int(finite.sum())
    return bad
