"""Files that torch writes: zip archives, and the pickles of ``torch.save`` before 1.6."""

from __future__ import annotations

import io
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import IO

from robaudit.checkpoints.files.contents import (
    SAVE_STATE_DICT,
    Contents,
    Refusal,
    contents_of_pickle,
)
from robaudit.checkpoints.files.exported import is_exported, read_exported
from robaudit.checkpoints.files.machine import MAX_BYTES
from robaudit.checkpoints.files.pickles import Reading, read_pickle
from robaudit.checkpoints.files.severity import SEVERITIES
from robaudit.checkpoints.files.torchscript import contents_of_script
from robaudit.checkpoints.files.values import Span, Storage
from robaudit.checkpoints.files.zip_records import (
    Records,
    damaged,
    read_record,
    read_records,
    record_span,
)
from robaudit.errors import CheckpointError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_archive(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    """The contents of a zip file that torch wrote.

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
    """The contents of a zip file of ``torch.save`` or TorchScript.

    Raises:
        CheckpointError: the archive is damaged, cut off, or another one.
    """
    records = read_records(file, size, name)
    return _read_saved(file, records, _root(records), path, name)


def _root(records: Records) -> str:
    """The folder of all records; torch reads its name from the first record, too."""
    return next(iter(records), "").partition("/")[0] + "/"


def _read_saved(file: IO[bytes], records: Records, root: str, path: Path, name: str) -> Contents:
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
    reading: Reading, records: Records, root: str, file: IO[bytes], path: Path, name: str
) -> dict[str, Span]:
    """The places of the storages; none in a file that is refused for the names it asks for."""
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


def read_legacy(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    """The contents of a file that begins like a pickle.

    Args:
        name: the file's name, for messages.

    Raises:
        CheckpointError: it is damaged, cut off, or from a machine of the other byte order.
    """
    file.seek(0)
    magic = read_pickle(file, min(size, 1 << 20))
    if magic.damage or magic.value != MAGIC:
        return _plain_pickle(file, name)
    protocol, system, main = (read_pickle(file) for _ in range(3))
    parts = [main, magic, protocol, system]
    if not any(part.damage for part in parts):
        keys = read_pickle(file)
        parts.append(keys)
    asked = tuple(dict.fromkeys(finding for part in parts for finding in part.findings))
    asked = tuple(sorted(asked, key=lambda finding: SEVERITIES.index(finding.severity)))
    damage = next((part.damage for part in parts if part.damage), None)
    places: dict[str, Span] = {}
    if damage is None and all(finding.severity != "dangerous" for finding in asked):
        _check_head(protocol, system, name)
        places = _legacy_places(file, size, main, keys, path, name)
    reading = Reading(main.value, main.storages, asked, damage)
    return contents_of_pickle(reading, "torch-legacy", name, file, places)


def _check_head(protocol: Reading, system: Reading, name: str) -> None:
    if protocol.value != PROTOCOL or not isinstance(system.value, dict):
        raise damaged(name, "its head is not one that torch.save writes")
    if system.value.get("little_endian") is not True:
        # torch reads such a file without swapping bytes, and gives wrong weights.
        raise damaged(name, "it was written on a big-endian machine")


def _plain_pickle(file: IO[bytes], name: str) -> Contents:
    file.seek(0)
    contents = contents_of_pickle(read_pickle(file), "pickle", name, file, {})
    refusal = contents.refusal
    if refusal is None or all(f.severity == "harmless" for f in contents.findings):
        refusal = Refusal(
            f"{name}: the file is a pickle, but not one that torch.save writes", SAVE_STATE_DICT
        )
    return replace(contents, members=(), refusal=refusal, note="", remarks=())


def _legacy_places(
    file: IO[bytes], size: int, main: Reading, keys: Reading, path: Path, name: str
) -> dict[str, Span]:
    """The places of the storages, one after the other, each complete."""
    order = keys.value
    if not isinstance(order, list) or not all(isinstance(key, str) for key in order):
        raise damaged(name, "the list of its storages is missing")
    if len(set(order)) != len(order) or set(order) != set(main.storages):
        raise damaged(name, "the list of its storages is not the one its tensors use")
    place, places = file.tell(), {}
    for key in order:
        storage = main.storages[key]
        file.seek(place)
        head = file.read(8)
        places[key] = Span(path, place + 8, storage.nbytes)
        place += 8 + storage.nbytes
        if len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel or place > size:
            raise damaged(name, f"the elements of the storage {key!r:.80} are missing")
    return places
