"""Zip archives that torch writes: ``torch.save``, TorchScript and ``torch.export``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from robaudit.checkpoints.files.contents import SAVE_STATE_DICT, Contents, contents_of_pickle
from robaudit.checkpoints.files.exported import is_exported, read_exported
from robaudit.checkpoints.files.machine import MAX_BYTES
from robaudit.checkpoints.files.pickles import Reading, read_pickle
from robaudit.checkpoints.files.torchscript import contents_of_script
from robaudit.checkpoints.files.values import Span, Storage
from robaudit.checkpoints.files.zip_records import damaged, read_record, read_records, record_span
from robaudit.errors import CheckpointError

_Records = Mapping[str, zipfile.ZipInfo]


def read_archive(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    """List what a zip file that torch wrote holds.

    Args:
        name: the file's name, for messages.

    Raises:
        CheckpointError: the archive is damaged, cut off, or not one that torch writes.
    """
    records = read_records(file, size, name)
    root = _root(records)
    if is_exported(records, root):
        return read_exported(file, records, root, path, name, read_saved)
    return _read_saved(file, records, root, path, name)


def read_saved(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    """List what a zip file of ``torch.save`` or TorchScript holds.

    Raises:
        CheckpointError: the archive is damaged, cut off, or another one.
    """
    records = read_records(file, size, name)
    return _read_saved(file, records, _root(records), path, name)


def _root(records: _Records) -> str:
    """The folder of everything, which torch takes from the first record."""
    return next(iter(records), "").partition("/")[0] + "/"


def _read_saved(file: IO[bytes], records: _Records, root: str, path: Path, name: str) -> Contents:
    if root + "data.pkl" not in records:
        raise CheckpointError(
            f"{name}: the file is a zip archive, but not one that torch.save writes",
            SAVE_STATE_DICT,
        )
    if root + "byteorder" in records:
        check_byte_order(read_record(file, records[root + "byteorder"], name, 100), name)
    data = read_record(file, records[root + "data.pkl"], name, MAX_BYTES)
    reading = read_pickle(io.BytesIO(data), len(data))
    places = _places(reading, records, root, file, path, name)
    if root + "constants.pkl" in records:
        return contents_of_script(reading, records, root, file, places, name)
    return contents_of_pickle(reading, "torch-zip", name, file, places)


def check_byte_order(text: bytes, name: str) -> None:
    """Refuse a file of a big-endian machine.

    Raises:
        CheckpointError: it is one.
    """
    if text.strip() != b"little":
        raise CheckpointError(
            f"{name}: the file was written on a big-endian machine",
            "Load and save it again on this one: torch.save(torch.load(PATH), PATH).",
        )


def _places(
    reading: Reading, records: _Records, root: str, file: IO[bytes], path: Path, name: str
) -> dict[str, Span]:
    """Where the storages are; nowhere in a file that is refused for what its pickle asks for."""
    if reading.damage or any(f.severity == "dangerous" for f in reading.findings):
        return {}
    return {
        key: _span(storage, records.get(f"{root}data/{key}"), file, path, name)
        for key, storage in reading.storages.items()
    }


def _span(
    storage: Storage, record: zipfile.ZipInfo | None, file: IO[bytes], path: Path, name: str
) -> Span:
    if record is None or record.file_size != storage.nbytes:
        raise damaged(name, f"the elements of the storage {storage.key!r:.80} are missing")
    return record_span(file, record, path, name)
