"""What a checkpoint file is, from its bytes alone: no torch, nothing run, no tensor data read."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from robaudit.checkpoints.archives import read_archive
from robaudit.checkpoints.contents import Contents, Refusal, TensorInfo, shown
from robaudit.checkpoints.legacy import read_legacy
from robaudit.checkpoints.pickles import read_pickle
from robaudit.checkpoints.safetensors_header import looks_like_safetensors, read_safetensors
from robaudit.checkpoints.severity import Finding
from robaudit.errors import CheckpointError

HASH_LIMIT = 256 << 20
"""Files up to this many bytes are hashed without being asked to."""

_HEAD = 4096
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLES = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_KNOWN_OTHERS = {
    b"\x1f\x8b": ("a gzip file", "Unpack it with gunzip or tar first."),
    b"BZh": ("a bzip2 file", "Unpack it first."),
    b"\xfd7zXZ": ("an xz file", "Unpack it first."),
    b"7z\xbc\xaf": ("a 7z archive", "Unpack it first."),
    b"Rar!": ("a rar archive", "Unpack it first."),
    b"\x89HDF": ("an HDF5 file, as Keras writes", "Only PyTorch weights can be audited."),
    b"\x93NUMPY": ("a NumPy array", "A checkpoint holds named tensors: save a state dict."),
    b"\x89PNG": ("a PNG image", None),
    b"\x7fELF": ("a program", None),
}


@dataclass(frozen=True)
class Container:
    """A checkpoint file.

    Attributes:
        format: ``torch-zip``, ``torch-legacy``, ``safetensors``, ``pickle`` or ``torchscript``.
        size: bytes.
        sha256: of the whole file, or ``None`` when it was not computed.
        member: where in the file the state dict is; ``""`` when the whole file is it.
        tensors: the state dict's, in the file's order.
        metadata: a safetensors header's, or the plain values beside the state dict.
        findings: the names a pickle asks for, the worst first.
        refusal: why the file will not be loaded, where that is so.
    """

    path: Path
    format: str
    size: int
    sha256: str | None
    member: str
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    findings: tuple[Finding, ...]
    refusal: Refusal | None


def read_container(path: str | Path, *, hash: bool | None = None) -> Container:
    """Read what a checkpoint file is, without loading it.

    Args:
        path: the file.
        hash: compute the SHA-256; by default for files up to 256 MB.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no checkpoint. A file that is
            whole but must not be loaded gives a container with a ``refusal``.
    """
    path = Path(path)
    name = shown(path, 200)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError(f"{name} is a directory", "Name a checkpoint file in it.")
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{name} is not a regular file")
        with path.open("rb") as file:
            contents = _read(file, status.st_size, path, name)
            wanted = status.st_size <= HASH_LIMIT if hash is None else hash
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest() if wanted else None
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {name}", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} cannot be read: {error}") from None
    return Container(
        path,
        contents.format,
        status.st_size,
        digest,
        contents.member,
        contents.tensors,
        contents.metadata,
        contents.findings,
        contents.refusal,
    )


def _read(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    head = file.read(_HEAD)
    if not head:
        raise CheckpointError(f"{name} is empty", "Download or copy it again.")
    if path.suffix == ".safetensors" or looks_like_safetensors(head, size):
        _refuse_text(head, name)
        return read_safetensors(file, size, name)
    if head.startswith(_ZIP):
        return read_archive(file, size, name)
    if head[:2] in _PICKLES:
        return read_legacy(file, size, name)
    for magic, (what, advice) in _KNOWN_OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{name} is {what}, not a checkpoint", advice)
    if _is_old_pickle(file):
        return read_legacy(file, size, name)
    _refuse_text(head, name)
    raise CheckpointError(
        f"{name} is no checkpoint in a known format",
        "Known are files of torch.save (.pt, .pth) and .safetensors.",
    )


def _is_old_pickle(file: IO[bytes]) -> bool:
    """Whether the file is a pickle of protocol 0 or 1, which begins with no magic bytes.

    Such a pickle asks for names; without them a text could be taken for one.
    """
    file.seek(0)
    reading = read_pickle(file)
    return bool(reading.findings) and reading.damage is None


def _refuse_text(head: bytes, name: str) -> None:
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{name} is a Git LFS pointer, not the file it stands for", "Run: git lfs pull"
        )
    if start.startswith((b"<!doctype html", b"<html", b"<head")) or b"<html" in start:
        raise CheckpointError(
            f"{name} is an HTML page, probably an error page saved by a download",
            "Open the address in a browser, and download the file itself.",
        )
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if len(head) < _HEAD or error.start < _HEAD - 4:
            return
        # A character cut in two where the head ends is no fault of the file.
        text = head[: error.start].decode()
    if all(c.isprintable() or c.isspace() for c in text):
        raise CheckpointError(f"{name} is a text file, not a checkpoint", "Check the download.")
