"""Reads what moves, repeats, adds up and averages the elements of an example."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robaudit.certified.exported import refusal
from robaudit.certified.operators import Reshape
from robaudit.certified.reader import MIXED, Activation, Handler, Reader

_aten = torch.ops.aten
_END = torch.iinfo(torch.int64).max


def _identity(_: Reader, x: Activation, *__: Any) -> Activation:
    return x


def _cast(_: Reader, x: Activation, dtype: torch.dtype | None, *__: Any) -> Activation:
    if dtype not in (None, torch.float32, torch.float64):
        raise refusal(f"a cast to {str(dtype).removeprefix('torch.')}")
    return x


def _reshape(reader: Reader, x: Activation, *_: Any) -> Activation:
    inside = reader.shape(x)
    if inside == reader.out:
        return x
    return reader.affine(Reshape((inside,), reader.out), x)


def _expand(reader: Reader, x: Activation, *_: Any) -> Activation:
    return reader.broadcast(x)


def _repeat(reader: Reader, x: Activation, repeats: Sequence[int]) -> Activation:
    if len(repeats) != len(reader.shape(x)) + 1 or repeats[0] != 1:
        raise refusal(MIXED)
    return reader.rearranged(lambda v: v.repeat(*repeats), x)


def _permute(reader: Reader, x: Activation, dims: Sequence[int]) -> Activation:
    order = [dim % len(dims) for dim in dims]
    if order[0] != 0:
        raise refusal(MIXED)
    return reader.rearranged(lambda v: v.permute(order), x)


def _flip(reader: Reader, x: Activation, dims: Sequence[int]) -> Activation:
    at = [reader.dim(x, dim) + 1 for dim in dims]
    return reader.rearranged(lambda v: v.flip(at), x)


def _select(reader: Reader, x: Activation, dim: int, index: int) -> Activation:
    at = reader.dim(x, dim) + 1
    return reader.rearranged(lambda v: v.select(at, index), x)


def _slice(reader: Reader, x: Activation, dim: int, start: Any, end: Any, step: int) -> Activation:
    if reader.shape(x) == reader.out and dim % (len(reader.out) + 1) == 0 and step == 1:
        return x  # all of the batch
    at = reader.dim(x, dim) + 1
    return reader.rearranged(lambda v: _aten.slice.Tensor(v, at, start, end, step), x)


def _split(reader: Reader, x: Activation, sizes: Sequence[int], dim: int) -> tuple[Activation, ...]:
    at = reader.dim(x, dim) + 1
    starts = [sum(sizes[:i]) for i in range(len(sizes))]

    def part(start: int, size: int) -> Activation:
        return reader.rearranged(lambda v: v.narrow(at, start, size), x)

    return tuple(part(*pair) for pair in zip(starts, sizes, strict=True))


def _index_select(reader: Reader, x: Activation, dim: int, index: Any) -> Activation:
    at = reader.dim(x, dim) + 1
    return reader.rearranged(lambda v, i: v.index_select(at, i), x, constants=_fixed(index))


def _index(reader: Reader, x: Any, indices: Sequence[Any]) -> Activation:
    if not isinstance(x, Activation) or indices[0] is not None:
        raise refusal(MIXED)
    places = [i for i, index in enumerate(indices) if index is not None]

    def function(v: Tensor, *found: Tensor) -> Tensor:
        at: list[Any] = [None] * len(indices)
        for place, index in zip(places, found, strict=True):
            at[place] = index
        taken: Tensor = _aten.index.Tensor(v, at)
        return taken

    return reader.rearranged(function, x, constants=_fixed(*(indices[i] for i in places)))


def _gather(reader: Reader, x: Any, dim: int, index: Any, _: bool = False) -> Activation:
    (index,) = _fixed(index)
    at = reader.dim(x, dim) + 1
    row = reader.constant_row(index, len(reader.out))[None]
    return reader.rearranged(
        lambda v, i: v.gather(at, i.expand(len(v), *i.shape[1:])), x, constants=(row,)
    )


def _fixed(*indices: Any) -> tuple[Tensor, ...]:
    if any(isinstance(index, Activation) for index in indices):
        raise refusal("an index that depends on the image")
    return indices


def _cat(reader: Reader, parts: Sequence[Any], dim: int) -> Activation:
    nodes = [reader.activation(part) for part in parts]
    at = reader.dim(nodes[0], dim) + 1
    return reader.rearranged(lambda *v: torch.cat(v, at), *nodes)


def _pad(reader: Reader, x: Activation, pad: Sequence[int], value: float = 0.0) -> Activation:
    whole = [*pad, *[0] * (2 * len(reader.out) + 2 - len(pad))]
    if any(whole[-2:]):
        raise refusal(MIXED)
    padded = reader.rearranged(lambda v: _aten.constant_pad_nd(v, pad, 0.0), x)
    if value == 0:
        return padded
    zeros = torch.zeros(1, *reader.shape(x), dtype=torch.float64)
    return reader.weighted([padded], [None], _aten.constant_pad_nd(zeros, pad, value)[0])


def _mean(reader: Reader, x: Activation, dims: Any, keep: bool = False, *_: Any) -> Activation:
    at, count = _summed(reader, x, dims)
    return reader.rearranged(lambda v: v.mean(at, keep), x, fan_in=count, smallest=1 / count)


def _sum(reader: Reader, x: Activation, dims: Any, keep: bool = False, *_: Any) -> Activation:
    at, count = _summed(reader, x, dims)
    return reader.rearranged(lambda v: v.sum(at, keep), x, fan_in=count)


def _summed(reader: Reader, x: Activation, dims: Any) -> tuple[list[int], int]:
    at = [reader.dim(x, dim) + 1 for dim in dims or [0]]
    return at, math.prod(reader.shape(x)[dim - 1] for dim in at)


def _average_pooled(name: str) -> Handler:
    pool: Any = getattr(_aten, name)

    def handler(
        reader: Reader, x: Activation, kernel: Sequence[int], stride: Any, padding: Any,
        ceil_mode: bool, count_padding: bool, divisor: int | None = None,
    ) -> Activation:  # fmt: skip
        dims = len(reader.out) - 1
        count = math.prod(kernel) ** (dims if len(kernel) == 1 else 1)
        rest = (kernel, stride or kernel, padding, ceil_mode, count_padding)
        if divisor is None:
            return reader.rearranged(lambda v: pool(v, *rest), x, fan_in=count, smallest=1 / count)
        return reader.rearranged(
            lambda v: pool(v, *rest, divisor), x, fan_in=count, smallest=1 / divisor
        )

    return handler


def _adaptively_pooled(name: str) -> Handler:
    pool: Any = getattr(_aten, name)

    def handler(reader: Reader, x: Activation, size: Sequence[int]) -> Activation:
        # Windows begin and end at rounded places.
        sides = zip(reader.shape(x)[1:], reader.out[1:], strict=True)
        count = math.prod(n // m if n % m == 0 else math.ceil(n / m) + 1 for n, m in sides)
        return reader.rearranged(lambda v: pool(v, size), x, fan_in=count, smallest=1 / count)

    return handler


def _nearest(name: str) -> Handler:
    upsample: Any = getattr(_aten, name)

    def handler(reader: Reader, x: Activation, size: Any, scales: Any) -> Activation:
        return reader.rearranged(lambda v: upsample.vec(v, size, scales), x)

    return handler


def _scattered(name: str) -> Handler:
    """Assigns to a part of a tensor."""
    scatter: Any = getattr(_aten, name)

    def handler(reader: Reader, x: Any, source: Any, dim: int, *where: Any) -> Activation:
        base, part = reader.activation(x), reader.activation(source)
        if dim == 0 and reader.shape(part) == reader.shape(base) and where == (0, _END, 1):
            return part  # all of the batch
        at = reader.dim(base, dim) + 1
        return reader.rearranged(lambda v, piece: scatter(v, piece, at, *where), base, part)

    return handler


def _copy(reader: Reader, _: Any, source: Any, *__: Any) -> Any:
    if isinstance(source, Activation):
        return reader.broadcast(source)
    row = reader.constant_row(source, len(reader.out))
    return row.double().expand(1, *reader.out)


def _nothing(*_: Any) -> None:
    return None


def _full_like(reader: Reader, _: Any, value: float, *__: Any) -> Tensor:
    return torch.full((1, *reader.out), value, dtype=torch.float64)


REARRANGING: Mapping[str, Handler] = {
    "_adaptive_avg_pool2d": _adaptively_pooled("_adaptive_avg_pool2d"),
    "_adaptive_avg_pool3d": _adaptively_pooled("_adaptive_avg_pool3d"),
    "_assert_tensor_metadata": _nothing,
    "_to_copy": _cast,
    "alias": _identity,
    "avg_pool1d": _average_pooled("avg_pool1d"),
    "avg_pool2d": _average_pooled("avg_pool2d"),
    "avg_pool3d": _average_pooled("avg_pool3d"),
    "cat": _cat,
    "clone": _identity,
    "constant_pad_nd": _pad,
    "copy": _copy,
    "detach": _identity,
    "expand": _expand,
    "flip": _flip,
    "full_like": _full_like,
    "gather": _gather,
    "index": _index,
    "index_select": _index_select,
    "mean": _mean,
    "permute": _permute,
    "repeat": _repeat,
    "select": _select,
    "select_scatter": _scattered("select_scatter"),
    "slice": _slice,
    "slice_scatter": _scattered("slice_scatter"),
    "split_with_sizes": _split,
    "squeeze": _reshape,
    "sum": _sum,
    "unsqueeze": _reshape,
    "upsample_nearest1d": _nearest("upsample_nearest1d"),
    "upsample_nearest2d": _nearest("upsample_nearest2d"),
    "upsample_nearest3d": _nearest("upsample_nearest3d"),
    "view": _reshape,
}
