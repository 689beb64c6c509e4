"""The header of a safetensors file: names, shapes, dtypes and metadata, checked to the byte."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import IO, Any

from robaudit.checkpoints.archives import damaged
from robaudit.checkpoints.contents import Contents, Refusal, TensorInfo, shown
from robaudit.checkpoints.values import ITEM_SIZES

MAX_HEADER = 32 << 20

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


def read_safetensors(file: IO[bytes], size: int, path: str) -> Contents:
    """List what a safetensors file holds.

    Raises:
        CheckpointError: the header is damaged, too long, or points outside the file.
    """
    file.seek(0)
    head = file.read(9)
    if not looks_like_safetensors(head, size):
        raise damaged(path, "it has no safetensors header")
    length = int.from_bytes(head[:8], "little")
    if length > MAX_HEADER:
        raise damaged(path, f"its safetensors header has {length} bytes")
    file.seek(8)
    try:
        header = json.loads(file.read(length).decode(), object_pairs_hook=_without_repeats)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict) or any(type(v) is not str for v in metadata.values()):
            raise ValueError("its metadata is not text")
        spans = [_entry(name, entry) for name, entry in header.items()]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise damaged(path, f"bad safetensors header ({shown(error, 100)})") from None
    _check_spans([(start, end) for _, start, end in spans], size - 8 - length, path)
    tensors = tuple(info for info, _, _ in spans)
    refusal = None
    if not tensors:
        refusal = Refusal(f"{path}: the file holds no tensors", "Save model.state_dict() in it.")
    return Contents("safetensors", tensors, "", metadata, (), refusal)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) != len(pairs):
        raise ValueError("a name stands in it twice")
    return entries


def _entry(name: str, entry: Any) -> tuple[TensorInfo, int, int]:
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"unknown dtype {entry['dtype']!r:.20}")
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    start, end = entry["data_offsets"]
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in (*shape, start, end)):
        raise ValueError("a size is no number of elements")
    if end - start != math.prod(shape) * ITEM_SIZES[dtype]:
        raise ValueError("a tensor has more or fewer bytes than its shape needs")
    return TensorInfo(name, tuple(shape), dtype), start, end


def _check_spans(spans: list[tuple[int, int]], size: int, path: str) -> None:
    """The tensors' bytes must fill the file, without gaps, overlaps or anything beyond its end."""
    edges = [(0, 0), *sorted(spans), (size, size)]
    if any(left[1] != right[0] for left, right in pairwise(edges)):
        raise damaged(path, "its tensors do not fill the file exactly")
