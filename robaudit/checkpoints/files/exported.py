"""``torch.export`` archives (``.pt2``): the state dict of the program, which is never run."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from robaudit.checkpoints.files.contents import Contents, Refusal
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.members import Member
from robaudit.checkpoints.files.values import (
    MalformedPickleError,
    Storage,
    StoredTensor,
    is_count,
    tensor_from,
)
from robaudit.checkpoints.files.zip_records import Records, damaged, read_record, record_span

_MAX_CONFIG = 64 << 20
_CONFIG = "_weights_config.json"
_OLD = "serialized_state_dict.pt"
_RESAVE = "Save the weights alone: torch.save(program.state_dict, PATH)."
_STRIDED = 7
# Codes of dtypes in torch.export's files.
_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    10: "complex64",
    11: "complex128",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu",
    34: "uint32",
    35: "uint64",
}
_REMARK = "the exported program is not run: only its weights are read"


def is_exported(records: Records, root: str) -> bool:
    """Whether an archive is one of ``torch.export.save``, of any version."""
    return root + "archive_format" in records or _OLD in records


def read_exported(
    file: IO[bytes],
    records: Records,
    root: str,
    path: Path,
    name: str,
    read_inner: Callable[[IO[bytes], int, Path, str], Contents],
) -> Contents:
    """The weights of exported programs, one member for each.

    Args:
        read_inner: reads a file of ``torch.save``, which holds the weights of older programs.

    Raises:
        CheckpointError: the archive is damaged.
    """
    if _OLD in records:
        return _nested(file, records[_OLD], path, name, read_inner)
    folder = root + "data/weights/"
    configs = [key for key in records if key.startswith(folder) and key.endswith(_CONFIG)]
    older = [key for key in records if key.startswith(folder) and key.endswith(".pt")]
    if older and not configs:
        return _nested(file, records[older[0]], path, name, read_inner)
    members, refusal = [], None
    for key in configs:
        entries = _entries(read_record(file, records[key], name, _MAX_CONFIG), name)
        if any(entry.get("use_pickle") is not False for entry in entries.values()):
            refusal = Refusal(f"{name}: the program's weights are no plain tensors", _RESAVE)
            continue
        tensors = {
            weight: _tensor(entry, file, records, folder, path, name)
            for weight, entry in entries.items()
        }
        if tensors:
            program = key.removeprefix(folder).removesuffix(_CONFIG)
            members.append(Member(program if len(configs) > 1 else "", tensors))
    if not members and refusal is None:
        refusal = Refusal(f"{name}: the exported program holds no state dict", _RESAVE)
    return Contents(
        "torch-export",
        tuple(members) if refusal is None else (),
        refusal=refusal,
        note="a program",
        remarks=(_REMARK,) if refusal is None else (),
    )


def _nested(
    file: IO[bytes],
    info: zipfile.ZipInfo,
    path: Path,
    name: str,
    read_inner: Callable[[IO[bytes], int, Path, str], Contents],
) -> Contents:
    span = record_span(file, info, path, name)
    inner = io.BufferedReader(_Window(file, span.start, span.nbytes))
    contents = read_inner(inner, span.nbytes, path, name)
    members = tuple(
        replace(m, tensors={k: _shifted(t, span.start) for k, t in m.tensors.items()})
        for m in contents.members
    )
    remarks = (*contents.remarks, *((_REMARK,) if contents.refusal is None else ()))
    return replace(
        contents, format="torch-export", members=members, note="a program", remarks=remarks
    )


def _shifted(tensor: StoredTensor, by: int) -> StoredTensor:
    span = tensor.span
    return replace(tensor, span=None if span is None else replace(span, start=span.start + by))


def _entries(text: bytes, name: str) -> dict[str, dict[str, Any]]:
    try:
        entries = json.loads(text)["config"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise damaged(name, f"the list of its weights: {shown(error, 100)}") from None
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise damaged(name, "the list of its weights is malformed")
    return entries


def _tensor(
    entry: dict[str, Any],
    file: IO[bytes],
    records: Records,
    folder: str,
    path: Path,
    name: str,
) -> StoredTensor:
    place = entry.get("path_name")
    info = records.get(f"{folder}{place}") if isinstance(place, str) else None
    if info is None:
        raise damaged(name, "the elements of a weight are missing")
    span = record_span(file, info, path, name)
    try:
        meta = entry["tensor_meta"]
        dtype = _DTYPES[meta["dtype"]]
        if meta["layout"] != _STRIDED:
            raise MalformedPickleError("a weight is sparse")
        shape, stride = (tuple(n["as_int"] for n in meta[key]) for key in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
        storage = Storage("uint8", str(place), span.nbytes if is_count(span.nbytes) else 0)
        checked = tensor_from(storage, offset, shape, stride, dtype)
    except (KeyError, TypeError, MalformedPickleError) as error:
        raise damaged(name, f"the list of its weights: {shown(error, 100)}") from None
    return StoredTensor(checked.shape, dtype, offset, checked.stride, span)


class _Window(io.RawIOBase):
    """``size`` bytes of ``file`` from ``start`` on: an archive in an archive, read in place."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._start, self._size = file, start, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("a place before the beginning")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        wanted = max(0, min(len(buffer), self._size - self._place))
        self._file.seek(self._start + self._place)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)
