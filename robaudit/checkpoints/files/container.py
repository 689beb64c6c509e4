"""Describes a checkpoint from its bytes: no torch, nothing is run, no tensor data is read."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from robaudit.checkpoints.files.contents import Contents, Refusal, TensorInfo, unreadable
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.hashing import HASH_LIMIT, BytesRead, digest_of_files
from robaudit.checkpoints.files.hf_folder import Folder, find_folder, read_folder
from robaudit.checkpoints.files.members import Member, choose_member
from robaudit.checkpoints.files.pickles import read_pickle
from robaudit.checkpoints.files.safetensors_header import looks_like_safetensors, read_safetensors
from robaudit.checkpoints.files.severity import Finding
from robaudit.checkpoints.files.torch_files import read_archive, read_legacy
from robaudit.checkpoints.files.values import StoredTensor
from robaudit.errors import CheckpointError, did_you_mean

_HEAD = 4096
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# Tensors may claim this many times the file's size, as with tied embeddings or shared averages, and
# this many bytes in small buffers.
_SHARED, _HARMLESS = 4, 1 << 22
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
class Description:
    """What can be said of a checkpoint, a file or a Hugging Face folder, without loading it.

    Attributes:
        format: ``torch-zip``, ``torch-legacy``, ``safetensors``, ``torchscript``,
            ``torch-export``, ``hf-folder`` or ``pickle``.
        note: what kind of file of its format it is, ``""`` for nothing to say.
        size: bytes, of all files with weights.
        sha256: of the whole file, or ``None`` when it was not computed. For a folder of several
            weight files it is that of the lines ``sha256sum`` prints for them, sorted by name.
        member: where in the file the state dict is; ``""`` when the whole file is it.
        members: where all state dicts are, the default choice first.
        tensors: of the chosen state dict, in the file's order.
        metadata: a safetensors header's, the plain values beside the state dict, or a folder's
            configuration.
        findings: the names a pickle asks for, the worst first.
        refusal: why the file will not be loaded, where that is so.
        remarks: the choice among several state dicts, what was left out.
    """

    path: Path
    format: str
    note: str
    size: int
    sha256: str | None
    member: str
    members: tuple[str, ...]
    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    findings: tuple[Finding, ...]
    refusal: Refusal | None
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Container(Description):
    """A checkpoint, and where its tensors' elements are.

    Attributes:
        elements: the place of each tensor's elements.
        folder: the Hugging Face folder, where it is one.
    """

    elements: Mapping[str, StoredTensor]
    folder: Folder | None


def read_container(
    path: str | Path,
    *,
    hash: bool | None = None,
    member: str | None = None,
    weights: str | None = None,
    progress: BytesRead | None = None,
) -> Container:
    """Describe a checkpoint, without loading it.

    Args:
        path: the file or the folder.
        hash: compute the SHA-256; by default for checkpoints up to 256 MB.
        member: the state dict to choose, if there are several.
        weights: ``raw``, ``ema`` or ``swa``: the weights as trained, or a running average.
        progress: told how many bytes were read while hashing.

    Raises:
        CheckpointError: there is no such file, or it is damaged or no checkpoint. A file that is
            whole but must not be loaded gives a container with a ``refusal``.
        UsageError: there is no such member, or there are no such weights.
    """
    path = Path(path)
    name = shown(path, 200)
    with readable(name):
        folder = find_folder(path) if path.is_dir() else None
        files = (path,) if folder is None else folder.shards
        size = sum(regular_size(file) for file in files)
        contents = _read_file(path) if folder is None else read_folder(folder, _read_file)
        wanted = size <= HASH_LIMIT if hash is None else hash
        sha256 = digest_of_files(files, progress) if wanted else None
    chosen, refusal, remarks = _chosen(contents, name, member, weights)
    refusal = refusal or _inflated(chosen, size, name)
    return Container(
        path,
        contents.format,
        contents.note,
        size,
        sha256,
        chosen.path,
        tuple(member.path for member in contents.members if not member.aside),
        tuple(TensorInfo(key, t.shape, t.dtype) for key, t in chosen.tensors.items()),
        contents.metadata,
        contents.findings,
        refusal,
        (*contents.remarks, *remarks),
        chosen.tensors,
        folder,
    )


def _chosen(
    contents: Contents, name: str, member: str | None, weights: str | None
) -> tuple[Member, Refusal | None, tuple[str, ...]]:
    """The chosen state dict, and why it cannot be loaded; a refused file is still described."""
    if not contents.members:
        return Member("", {}), contents.refusal, ()
    try:
        chosen, remarks = choose_member(contents.members, name, member=member, weights=weights)
    except CheckpointError as error:
        refusal = contents.refusal or Refusal(error.message, error.advice)
        return Member("", {}), refusal, ()
    return chosen, contents.refusal or unreadable(chosen, name), remarks


def _inflated(chosen: Member, size: int, name: str) -> Refusal | None:
    """Refuse tensors that repeat the same elements.

    With a stride of zero, overlapping windows or many tensors of one storage, tensors claim more
    than the file holds; copying them would allocate all of it.
    """
    claimed = sum(tensor.nbytes for tensor in chosen.tensors.values())
    if claimed <= _HARMLESS + _SHARED * size:
        return None
    return Refusal(
        f"{name} has {size:,} bytes, but its tensors claim {claimed:,}: they show the same "
        "elements over and over",
        "Save each tensor with its own elements: tensor.contiguous().clone().",
    )


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns the errors of opening a file into those of a checkpoint.

    Raises:
        CheckpointError: there is no such file, or it cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise CheckpointError(f"no such file: {name}{_nearest(name)}", "Check the path.") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} cannot be read: {error}") from None


def _nearest(name: str) -> str:
    path = Path(name)
    try:
        beside = [entry.name for entry in path.parent.iterdir()]
    except (OSError, ValueError):
        return ""
    return did_you_mean(path.name, beside)


def regular_size(path: Path) -> int:
    """The size of a regular file.

    Raises:
        CheckpointError: it is a pipe, a device or the like, and reading could block.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError(f"{shown(path, 200)} is not a regular file")
    return status.st_size


def _read_file(path: Path) -> Contents:
    size = regular_size(path)
    with path.open("rb") as file:
        return _read(file, size, path, shown(path, 200))


def _read(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    head = file.read(_HEAD)
    if not head:
        raise CheckpointError(f"{name} is empty", "Download or copy it again.")
    if path.suffix == ".safetensors" or looks_like_safetensors(head, size):
        _refuse_text(head, name)
        return read_safetensors(file, size, path, name)
    if head.startswith(_ZIP):
        return read_archive(file, size, path, name)
    if head[:2] in _PICKLES:
        return read_legacy(file, size, path, name)
    for magic, (what, advice) in _KNOWN_OTHERS.items():
        if head.startswith(magic):
            raise CheckpointError(f"{name} is {what}, not a checkpoint", advice)
    if _is_old_pickle(file):
        return read_legacy(file, size, path, name)
    _refuse_text(head, name)
    raise CheckpointError(
        f"{name} is no checkpoint in a known format",
        "Known are files of torch.save, safetensors, TorchScript, torch.export, and Hugging Face "
        "folders.",
    )


def _is_old_pickle(file: IO[bytes]) -> bool:
    """Whether the file is a pickle of protocol 0 or 1, which begins with no magic bytes.

    It must ask for names: otherwise a text file could be mistaken for one.
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
        # The end of the head may cut a character in two.
        text = head[: error.start].decode()
    if all(c.isprintable() or c.isspace() for c in text):
        raise CheckpointError(f"{name} is a text file, not a checkpoint", "Check the download.")
