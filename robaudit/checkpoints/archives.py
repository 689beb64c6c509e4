"""Zip archives of ``torch.save``: the pickle in them, read symbolically, and their records."""

from __future__ import annotations

import struct
import zipfile
import zlib
from typing import IO

from robaudit.checkpoints.contents import SAVE_STATE_DICT, Contents, Refusal, contents_of_pickle
from robaudit.checkpoints.machine import MAX_BYTES
from robaudit.checkpoints.pickles import Reading, read_pickle
from robaudit.errors import CheckpointError

MAX_DIRECTORY = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_CHUNK = 1 << 20
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    ArithmeticError,
    LookupError,
    EOFError,
    OSError,
    ValueError,
    struct.error,
)


def read_archive(file: IO[bytes], size: int, path: str) -> Contents:
    """List what a zip file of ``torch.save`` holds.

    Raises:
        CheckpointError: the archive is damaged, cut off, or not one that ``torch.save`` writes.
    """
    records = _records(file, size, path)
    # torch looks for the pickle in the folder of the first record.
    pickle = next(iter(records), "").partition("/")[0] + "/data.pkl"
    if any(name.endswith("/constants.pkl") for name in records):
        refusal = Refusal(
            f"{path}: the file is a TorchScript archive: a program, not only weights",
            "Save the weights of its network alone: torch.save(model.state_dict(), PATH).",
        )
        return Contents("torchscript", refusal=refusal)
    if pickle not in records:
        raise CheckpointError(
            f"{path}: the file is a zip archive, but not one that torch.save writes",
            SAVE_STATE_DICT,
        )
    info = records[pickle]
    if info.file_size > MAX_BYTES:
        raise damaged(path, f"its pickle has {info.file_size} bytes")
    file.seek(_start(file, info, path))
    reading = read_pickle(file, info.file_size)
    _check_storages(reading, records, pickle.removesuffix("data.pkl"), path)
    return contents_of_pickle(reading, "torch-zip", path)


def check_records(file: IO[bytes], size: int, path: str) -> None:
    """Compare every record with its checksum, which torch itself does not do.

    Raises:
        CheckpointError: a record is damaged.
    """
    for info in _records(file, size, path).values():
        if info.CRC == 0:  # written with checksums off
            continue
        file.seek(_start(file, info, path))
        checksum, left = 0, info.file_size
        while left > 0:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                break
            checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
        if checksum != info.CRC:
            raise damaged(path, f"the checksum of {info.filename!r:.80} is wrong")


def damaged(path: str, why: str) -> CheckpointError:
    """The error for a file that is not as it was written."""
    return CheckpointError(
        f"{path}: the file is damaged or cut off: {why}", "Download or copy it again."
    )


def _records(file: IO[bytes], size: int, path: str) -> dict[str, zipfile.ZipInfo]:
    if _directory_size(file, size, path) > MAX_DIRECTORY:
        raise damaged(path, f"its directory has more than {MAX_DIRECTORY >> 20} MB")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _ZIP_ERRORS as error:
        raise damaged(path, f"{str(error)[:100]}") from None
    records = {info.filename: info for info in infos}
    # In what follows two readers could take different records for the same name; torch's looks
    # names up regardless of case.
    if len({name.lower() for name in records}) != len(infos) or any(
        info.filename != info.orig_filename or info.header_offset < 0 for info in infos
    ):
        raise damaged(path, "it holds two records of the same name")
    if any(info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1 for info in infos):
        raise CheckpointError(
            f"{path}: the archive is compressed or encrypted, as torch.save never does",
            "Load and save it again with torch.save.",
        )
    # Stored records cannot overlap in an honest file, so no archive can unpack to more than it is.
    if any(info.compress_size != info.file_size for info in infos) or size < sum(
        info.file_size for info in infos
    ):
        raise damaged(path, "its records are larger than the file")
    return records


def _directory_size(file: IO[bytes], size: int, path: str) -> int:
    """Bytes of the central directory, so that a hostile one is not read into memory."""
    tail = min(size, 65557 + 20)
    file.seek(size - tail)
    data = file.read(tail)
    end = data.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(data):
        raise damaged(path, "the directory at its end is missing")
    (directory,) = struct.unpack_from("<L", data, end + 12)
    if directory == 0xFFFFFFFF and end >= 20 and data[end - 20 : end - 16] == b"PK\x06\x07":
        (place,) = struct.unpack_from("<Q", data, end - 12)
        file.seek(min(place, size))
        record = file.read(56)
        if len(record) < 56:
            raise damaged(path, "the directory at its end is missing")
        (directory,) = struct.unpack_from("<Q", record, 40)
    return int(directory)


def _start(file: IO[bytes], info: zipfile.ZipInfo, path: str) -> int:
    """Where a record's bytes begin."""
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise damaged(path, f"the record {info.filename!r:.80} is missing")
    _, name, extra = _LOCAL_HEADER.unpack(header)
    if file.read(name) != info.orig_filename.encode(
        "utf-8" if info.flag_bits & 0x800 else "cp437", "replace"
    ):
        raise damaged(path, f"the record {info.filename!r:.80} has another name in its directory")
    return int(info.header_offset + _LOCAL_HEADER.size + name + extra)


def _check_storages(
    reading: Reading, records: dict[str, zipfile.ZipInfo], prefix: str, path: str
) -> None:
    for storage in reading.storages.values():
        record = records.get(f"{prefix}data/{storage.key}")
        if record is None or record.file_size != storage.nbytes:
            raise damaged(path, f"the elements of the storage {storage.key!r:.80} are missing")
