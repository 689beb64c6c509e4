"""Adversarial examples in a file, for checks by others."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robaudit.atomic_write import atomic_write
from robaudit.data.arrayfile import tensor_rows
from robaudit.engine.images import LARGE, StoredImages, tiles
from robaudit.errors import DataError, UsageError
from robaudit.types import Examples, ThreatModel

_KIND = "robaudit adversarial examples"


@dataclass(frozen=True)
class Adversarial:
    """One image for each audited example: the one that broke it, or the one of highest loss.

    Attributes:
        x: ``(n, c, h, w)`` float32 in [0, 1].
        y: ``(n,)`` labels.
        index: ``(n,)`` the examples' places in their data set.
        broken: ``(n,)`` bool; misclassified at ``x`` by the classifier that was attacked.
        data, split, data_sha256: the clean examples.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    broken: Tensor
    threat: ThreatModel
    data: str
    split: str
    data_sha256: str
    made_on: str
    made_by: str


def save_adversarial(path: Path, found: Adversarial) -> None:
    """Write a safetensors file, whole or not at all; its ``x`` and ``y`` also load as data.

    Raises:
        UsageError: it cannot be written.
    """
    metadata = {
        "kind": _KIND,
        "version": "1",
        "norm": found.threat.norm,
        "eps": repr(found.threat.eps),
        **{name: getattr(found, name) for name in _TEXTS},
    }
    try:
        atomic_write(path, _pieces({name: getattr(found, name) for name in _TENSORS}, metadata))
    except OSError as error:
        raise UsageError(
            f"cannot write adversarial examples to {path}: {error}", "Choose another --save-adv."
        ) from error


def read_adversarial(path: Path) -> Adversarial:
    """Read what :func:`save_adversarial` wrote.

    Raises:
        DataError: no such file, or another kind of file.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            if metadata.get("kind") != _KIND or metadata.get("version") != "1":
                raise DataError(
                    f"{path} holds no adversarial examples of robaudit",
                    "It is made by robaudit attack --save-adv FILE.safetensors.",
                )
            tensors = {name: file.get_tensor(name) for name in _TENSORS if name != "x"}
            shape = file.get_slice("x").get_shape()
            many = len(shape) == 4 and 4 * math.prod(shape) > LARGE
            tensors["x"] = _stored(path, shape) if many else file.get_tensor("x")
        threat = ThreatModel(metadata["norm"], float(metadata["eps"]))  # type: ignore[arg-type]
        texts: dict[str, Any] = {name: metadata[name] for name in _TEXTS}
        found = Adversarial(**tensors, threat=threat, **texts)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, SafetensorError, KeyError, ValueError, UsageError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    n = len(found.x)
    shapes = [found.y.shape, found.index.shape, found.broken.shape]
    if found.x.dim() != 4 or found.x.dtype != torch.float32 or any(s != (n,) for s in shapes):
        raise DataError(f"{path} cannot be read: its tensors' shapes do not fit together")
    return found


def check_same_data(found: Adversarial, examples: Examples) -> None:
    """Refuse clean examples that are not those that the adversarial ones were made of.

    Raises:
        DataError: other examples, or other labels.
    """
    same = torch.equal(found.index, examples.index) and torch.equal(found.y, examples.y)
    if not same or found.data_sha256 != examples.sha256:
        raise DataError(
            f"the adversarial examples were made of {len(found.y)} examples of {found.data} "
            f"({found.split}), sha256 {found.data_sha256[:12]}; these have {examples.sha256[:12]}",
            "Give the same --data, --split, --n and --sample as for --save-adv.",
        )


def _pieces(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Iterator[bytes]:
    """A safetensors file, piece by piece: images may be more than memory holds."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = _KINDS[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for tensor in tensors.values():
        for part in tiles(tensor):
            yield tensor[part].cpu().contiguous().numpy().tobytes()


def _stored(path: Path, shape: Sequence[int]) -> Tensor:
    """Images that stay in the file."""
    rows = tensor_rows(path, "x")
    if rows.dtype != np.float32:
        raise ValueError(f"its images are {rows.dtype}")

    def read(wanted: Tensor) -> Tensor:
        at, back = np.unique(wanted.numpy(), return_inverse=True)
        return torch.from_numpy(rows.read(at))[torch.from_numpy(back)]

    return StoredImages(shape, read)


# Those of eight bytes an element first, as readers map them where they lie.
_TENSORS = ("y", "index", "x", "broken")
_KINDS = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
_TEXTS = ("data", "split", "data_sha256", "made_on", "made_by")
