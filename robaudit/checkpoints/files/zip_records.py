"""The records of a zip file, checked so that every reader finds the same ones."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from robaudit.checkpoints.files.values import Span
from robaudit.errors import CheckpointError

Records = Mapping[str, zipfile.ZipInfo]
"""The records of a zip file, by name."""

MAX_DIRECTORY = 64 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
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


def damaged(path: str, why: str) -> CheckpointError:
    """The error for a damaged file."""
    return CheckpointError(
        f"{path}: the file is damaged or cut off: {why}", "Download or copy it again."
    )


def read_records(file: IO[bytes], size: int, path: str) -> dict[str, zipfile.ZipInfo]:
    """The records of a zip file by name, in its order, none of them read.

    Raises:
        CheckpointError: the archive is damaged, or readers could disagree on its records.
    """
    if _directory_size(file, size, path) > MAX_DIRECTORY:
        raise damaged(path, f"its directory has more than {MAX_DIRECTORY >> 20} MB")
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except _ZIP_ERRORS as error:
        raise damaged(path, f"{str(error)[:100]}") from None
    records = {info.filename: info for info in infos}
    # Otherwise two readers could find different records for a name; torch ignores case.
    if len({name.lower() for name in records}) != len(infos) or any(
        info.filename != info.orig_filename or info.header_offset < 0 for info in infos
    ):
        raise damaged(path, "it holds two records of the same name")
    if infos and min(info.header_offset for info in infos) != 0:
        raise damaged(path, "its directory leaves out what is at its beginning")
    if any(info.flag_bits & 1 or not _is_plain(info) for info in infos):
        raise CheckpointError(
            f"{path}: the archive is compressed or encrypted, as torch.save never does",
            "Load and save it again with torch.save.",
        )
    # Records must not overlap, so that no archive unpacks to more than its size.
    stored = [info for info in infos if info.compress_type == zipfile.ZIP_STORED]
    if any(info.compress_size != info.file_size for info in stored) or size < sum(
        info.compress_size for info in infos
    ):
        raise damaged(path, "its records are larger than the file")
    return records


def _is_plain(info: zipfile.ZipInfo) -> bool:
    """Stored, or the text of a TorchScript program, which torch compresses."""
    if info.compress_type == zipfile.ZIP_STORED:
        return True
    return info.compress_type == zipfile.ZIP_DEFLATED and "/code/" in info.filename


def _directory_size(file: IO[bytes], size: int, path: str) -> int:
    """Bytes of the central directory, so that an oversized one is not read into memory."""
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


def record_start(file: IO[bytes], info: zipfile.ZipInfo, path: str) -> int:
    """Where a record's bytes begin.

    Raises:
        CheckpointError: its own header is missing or has another name than the directory.
    """
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


def record_span(file: IO[bytes], info: zipfile.ZipInfo, path: Path, name: str) -> Span:
    """The bytes of a stored record, with their checksum unless it was written without one.

    Raises:
        CheckpointError: the record is damaged or compressed.
    """
    if info.compress_type != zipfile.ZIP_STORED:
        raise damaged(name, f"the record {info.filename!r:.80} is compressed")
    return Span(path, record_start(file, info, name), info.file_size, info.CRC or None)


def read_record(file: IO[bytes], info: zipfile.ZipInfo, path: str, limit: int) -> bytes:
    """A whole record, unpacked, its checksum compared.

    Raises:
        CheckpointError: it is damaged, or larger than ``limit`` bytes.
    """
    if max(info.file_size, info.compress_size) > limit:
        raise damaged(path, f"its record {info.filename!r:.80} has {info.file_size} bytes")
    file.seek(record_start(file, info, path))
    data = file.read(info.compress_size)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        try:
            data = zlib.decompressobj(-15).decompress(data, limit)
        except zlib.error as error:
            raise damaged(path, f"the record {info.filename!r:.80}: {error}") from None
    if len(data) != info.file_size or (info.CRC and zlib.crc32(data) != info.CRC):
        raise damaged(path, f"the checksum of {info.filename!r:.80} is wrong")
    return data
