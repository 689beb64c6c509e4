"""The header of a safetensors file: names, shapes, dtypes and metadata, checked to the byte."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from robaudit.checkpoints.files.contents import Contents, Refusal
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.members import KINDS, Member, copies
from robaudit.checkpoints.files.values import ITEM_SIZES, Span, StoredTensor, contiguous, is_count
from robaudit.checkpoints.files.zip_records import damaged

MAX_HEADER = 32 << 20
_MAX_DIMENSIONS = 64

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}


def looks_like_safetensors(head: bytes, size: int) -> bool:
    """Whether the first nine bytes are a header's length that fits the file, and its brace."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def read_safetensors(file: IO[bytes], size: int, path: Path, name: str) -> Contents:
    """The contents of a safetensors file.

    Args:
        name: the file's name, for messages.

    Raises:
        CheckpointError: the header is damaged, too long, or points outside the file.
    """
    file.seek(0)
    head = file.read(9)
    if not looks_like_safetensors(head, size):
        raise damaged(name, "it has no safetensors header")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER:
        raise damaged(name, f"its safetensors header has {length} bytes")
    file.seek(8)
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
            raise ValueError("its metadata is not text")
        tensors = {key: _tensor(entry, 8 + length, path) for key, entry in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(name, f"bad safetensors header ({shown(error, 100)})") from None
    spans = [t.span for t in tensors.values() if t.span is not None]
    _check_spans([(s.start, s.start + s.nbytes) for s in spans], 8 + length, size, name)
    if not tensors:
        refusal = Refusal(f"{name}: the file holds no tensors", "Save model.state_dict() in it.")
        return Contents("safetensors", (), metadata, (), refusal)
    members = tuple(sorted(copies(Member("", tensors)), key=lambda m: KINDS.index(m.kind)))
    return Contents("safetensors", members, metadata)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name occurs twice")
    return entries


def _tensor(entry: Any, base: int, path: Path) -> StoredTensor:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"unknown dtype {entry['dtype']!r:.20}")
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    start, end = entry["data_offsets"]
    if len(shape) > _MAX_DIMENSIONS or not all(map(is_count, (*shape, start, end))):
        raise ValueError("a size is not a number of elements")
    if end - start != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ValueError("a tensor has more or fewer bytes than its shape needs")
    span = Span(path, base + start, end - start)
    return StoredTensor(tuple(shape), dtype, 0, contiguous(tuple(shape)), span)


def _check_spans(spans: list[tuple[int, int]], start: int, end: int, name: str) -> None:
    """The tensors' bytes must fill the file, without gaps, overlaps or anything beyond its end."""
    edges = [(start, start), *sorted(spans), (end, end)]
    if any(left[1] != right[0] for left, right in pairwise(edges)):
        raise damaged(name, "its tensors do not fill the file exactly")
