"""Files of ``torch.save`` before 1.6: five pickles, then the elements. And plain pickles."""

from __future__ import annotations

import struct
from typing import IO

from robaudit.checkpoints.archives import damaged
from robaudit.checkpoints.contents import SAVE_STATE_DICT, Contents, Refusal, contents_of_pickle
from robaudit.checkpoints.pickles import Reading, read_pickle
from robaudit.checkpoints.severity import SEVERITIES

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001


def read_legacy(file: IO[bytes], size: int, path: str) -> Contents:
    """List what a file that begins like a pickle holds.

    Raises:
        CheckpointError: it is damaged, cut off, or from a machine of the other byte order.
    """
    file.seek(0)
    magic = read_pickle(file, min(size, 1 << 20))
    if magic.damage or magic.value != MAGIC:
        return _plain(file, path)
    protocol, system, main = (read_pickle(file) for _ in range(3))
    parts = [main, magic, protocol, system]
    if not any(part.damage for part in parts):
        keys = read_pickle(file)
        parts.append(keys)
    asked = tuple(dict.fromkeys(finding for part in parts for finding in part.findings))
    asked = tuple(sorted(asked, key=lambda finding: SEVERITIES.index(finding.severity)))
    damage = next((part.damage for part in parts if part.damage), None)
    if damage is None and all(finding.severity == "harmless" for finding in asked):
        _check_head(protocol, system, path)
        _check_storages(file, size, main, keys, path)
    return contents_of_pickle(
        Reading(main.value, main.storages, asked, damage), "torch-legacy", path
    )


def _check_head(protocol: Reading, system: Reading, path: str) -> None:
    if protocol.value != PROTOCOL or not isinstance(system.value, dict):
        raise damaged(path, "its head is not one that torch.save writes")
    if system.value.get("little_endian") is not True:
        # torch reads such a file without turning the bytes round, and gives wrong weights.
        raise damaged(path, "it was written on a big-endian machine")


def _plain(file: IO[bytes], path: str) -> Contents:
    file.seek(0)
    reading = read_pickle(file)
    contents = contents_of_pickle(reading, "pickle", path)
    refusal = contents.refusal
    if refusal is None or all(f.severity == "harmless" for f in reading.findings):
        refusal = Refusal(
            f"{path}: the file is a pickle, but not one that torch.save writes", SAVE_STATE_DICT
        )
    return Contents("pickle", (), "", contents.metadata, reading.findings, refusal)


def _check_storages(file: IO[bytes], size: int, main: Reading, keys: Reading, path: str) -> None:
    """Every storage must be there in full: torch leaves one that is not uninitialised."""
    order = keys.value
    if not isinstance(order, list) or not all(isinstance(key, str) for key in order):
        raise damaged(path, "the list of its storages is missing")
    if len(set(order)) != len(order) or set(order) != set(main.storages):
        raise damaged(path, "the list of its storages is not the one its tensors use")
    place = file.tell()
    for key in order:
        storage = main.storages[key]
        file.seek(place)
        head = file.read(8)
        place += 8 + storage.nbytes
        if len(head) < 8 or struct.unpack("<q", head)[0] != storage.numel or place > size:
            raise damaged(path, f"the elements of the storage {key!r:.80} are missing")
