"""Pixels as a PNG in a data URI (PNG specification, third edition, 2025)."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robaudit.report.gallery import Pixels

_GREY, _COLOUR = 0, 2


def data_uri(pixels: Pixels) -> str:
    """An ``(h, w)`` or ``(h, w, 3)`` uint8 picture as ``data:image/png;base64,...``."""
    height, width = pixels.shape[:2]
    kind = _COLOUR if pixels.ndim == 3 else _GREY
    # Every row begins with the number of its filter; 0 is none.
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    png = b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)
