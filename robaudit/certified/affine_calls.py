"""Reads sums, scalings, convolutions and products with constant matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from robaudit.certified.exported import refusal
from robaudit.certified.operators import Shape
from robaudit.certified.products import Contraction, Convolution, Dense
from robaudit.certified.reader import MIXED, PRODUCT, Activation, Handler, Reader


def _convolution(
    reader: Reader,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    _: Sequence[int],
    groups: int,
    *__: bool,
) -> Activation:
    _alone(x, weight, bias)
    dims = weight.ndim - 2

    def sizes(value: Sequence[int]) -> Shape:
        return tuple(value) if len(value) == dims else tuple(value) * dims

    made = Convolution(
        (reader.shape(x),),
        reader.out,
        weight,
        bias,
        *(sizes(stride), sizes(padding), sizes(dilation)),
        groups,
        transposed,
    )
    return reader.affine(made, x)


def _linear(reader: Reader, x: Any, weight: Any, bias: Any = None) -> Activation:
    _alone(x, weight, bias)
    return reader.affine(Dense((reader.shape(x),), reader.out, weight, bias), x)


def _batch_norm(
    reader: Reader, x: Activation, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> tuple[Activation, None, None]:
    """``s (x - mean) + bias`` with ``s = weight / sqrt(var + eps)``."""

    def column(value: Tensor) -> Tensor:
        return value.reshape(-1, *(1 for _ in reader.shape(x)[1:]))

    scale = (var + eps).rsqrt() if weight is None else weight * (var + eps).rsqrt()
    shift = torch.zeros_like(mean) if bias is None else bias
    size = scale.abs() * mean.abs() + shift.abs()
    made = reader.build.weighted(
        [x.index], [column(scale)], column(shift - scale * mean), column(size)
    )
    return Activation(made), None, None


def _add(reader: Reader, x: Any, y: Any, alpha: float = 1) -> Activation:
    return _sum(reader, x, y, 1, alpha)


def _sub(reader: Reader, x: Any, y: Any, alpha: float = 1) -> Activation:
    return _sum(reader, x, y, 1, -alpha)


def _rsub(reader: Reader, x: Any, y: Any, alpha: float = 1) -> Activation:
    return _sum(reader, x, y, -alpha, 1)


def _sum(reader: Reader, x: Any, y: Any, a: float, b: float) -> Activation:
    pairs = [(x, a), (y, b)]
    nodes = [(v, w) for v, w in pairs if isinstance(v, Activation)]
    rank = len(reader.out)
    bias = [reader.constant_row(v, rank) * w for v, w in pairs if not isinstance(v, Activation)]
    weights = [None if w == 1 else float(w) for _, w in nodes]
    return reader.weighted([v for v, _ in nodes], weights, bias[0] if bias else None)


def _mul(reader: Reader, x: Any, y: Any) -> Activation:
    x, y = (x, y) if isinstance(x, Activation) else (y, x)
    if isinstance(y, Activation):
        raise refusal(PRODUCT)
    return reader.weighted([x], [reader.constant_row(y, len(reader.out))])


def _div(reader: Reader, x: Any, y: Any, rounding: str | None = None) -> Activation:
    if isinstance(y, Activation):
        raise refusal("a quotient of two activations" if isinstance(x, Activation) else "1 / x")
    if rounding is not None:
        raise refusal("rounding")
    return _mul(reader, x, 1 / y)


def _neg(reader: Reader, x: Activation) -> Activation:
    return reader.weighted([x], [-1.0])


def _where(reader: Reader, mask: Any, x: Any, y: Any) -> Activation:
    """``m x + (1 - m) y`` of a constant mask."""
    if isinstance(mask, Activation):
        raise refusal("a comparison of activations")
    m = reader.constant_row(mask, len(reader.out)).double()
    total: Activation | None = None
    for value, weight in ((x, m), (y, 1 - m)):
        if isinstance(value, Activation):
            part = reader.weighted([value], [weight])
        else:
            row = reader.constant_row(value, len(reader.out))
            # Not a product, where the constant is infinite and not chosen.
            chosen = torch.where(weight > 0, row, torch.zeros(()).double())
            part = Activation(reader.build.constant(chosen.expand(reader.out)))
        total = part if total is None else reader.weighted([total, part], [None, None])
    assert total is not None
    return total


def _matmul(reader: Reader, x: Any, y: Any) -> Activation:
    """A product of batches of matrices, one of them constant."""
    if isinstance(x, Activation) and isinstance(y, Activation):
        raise refusal(PRODUCT)
    if isinstance(x, Activation) and y.ndim == 2:
        return _linear(reader, x, y.T)
    left = isinstance(x, Activation)
    activation, matrix = (x, y) if left else (y, x)
    rank = len(reader.shape(activation))
    if matrix.ndim > 2:
        matrix = reader.constant_row(matrix, rank)
    if (rank == 1 and not (left and matrix.ndim == 1)) or matrix.ndim > max(rank, 2):
        raise refusal(MIXED)
    # y is summed over; t and z are the other dimensions of the activation's and of the constant's
    # matrices.
    batch = "abcdefghijklmnop"[: max(rank - 2, 0)]
    inside = batch + (("ty" if left else "yt") if rank > 1 else "y")
    columns = ("yz" if left else "zy") if matrix.ndim > 1 else "y"
    own = batch[len(batch) + 2 - max(matrix.ndim, 2) :] + columns
    for place in reversed(range(len(own) - len(columns))):
        if matrix.shape[place] == 1:
            matrix, own = matrix.select(place, 0), own[:place] + own[place + 1 :]
    order = batch + ("tz" if left else "zt")
    out = "".join(label for label in order if label in inside + own)
    wide = (*reader.out[: len(batch)], *reader.shape(activation)[len(batch) :])
    if wide != reader.shape(activation):
        activation = reader.rearranged(lambda v: v.expand(len(v), *wide), activation)
    return _contracted(reader, activation, matrix, (inside, own, out))


def _einsum(reader: Reader, equation: str, operands: Sequence[Any], _: Any = None) -> Activation:
    words = equation.replace(" ", "")
    given, arrow, out = words.partition("->")
    labels = given.split(",")
    if not arrow:
        out = "".join(sorted(label for label in set(given) - {","} if given.count(label) == 1))
    places = [i for i, operand in enumerate(operands) if isinstance(operand, Activation)]
    if len(places) > 1:
        raise refusal(PRODUCT)
    inside = labels[places[0]]
    if "." in words or len(set(inside)) < len(inside):
        raise refusal("the operation einsum")
    if not out.startswith(inside[0]):
        raise refusal(MIXED)
    others = [(labels[i], v) for i, v in enumerate(operands) if i != places[0]]
    own = "".join(dict.fromkeys("".join(label for label, _ in others)))
    equation = f"{','.join(label for label, _ in others)}->{own}"
    weight = torch.einsum(equation, *(v for _, v in others)) if others else torch.ones(()).double()
    if inside[0] in own:
        weight = weight.movedim(own.index(inside[0]), 0)
        own = own.replace(inside[0], "")
        weight = reader.constant_row(weight, len(own))
    activation: Activation = operands[places[0]]
    for label, size in zip(inside[1:], reader.shape(activation), strict=True):
        if label not in own + out:  # a sum over a dimension that only the input has
            weight, own = weight.expand(size, *weight.shape), label + own
    return _contracted(reader, activation, weight, (inside[1:], own, out[1:]))


def _contracted(
    reader: Reader, x: Activation, weight: Tensor, labels: tuple[str, str, str]
) -> Activation:
    return reader.affine(Contraction((reader.shape(x),), reader.out, weight, labels), x)


def _addmm(reader: Reader, bias: Any, x: Any, y: Any, beta: float, alpha: float) -> Activation:
    if isinstance(bias, Tensor) and isinstance(y, Tensor) and bias.ndim == alpha == beta == 1:
        return _linear(reader, x, y.T, bias)
    return _sum(reader, bias, _matmul(reader, x, y), beta, alpha)


def _interpolated(
    reader: Reader, x: Activation, sizes: Any, align_corners: bool, scales: Any
) -> Activation:
    """Linear interpolation, one dimension after another."""
    rank = len(reader.shape(x))
    names = "abcd"[:rank]
    result = reader.out
    for i in range(1, rank):
        shape = reader.shape(x)
        units = torch.eye(shape[i], dtype=reader.dtype)[:, None]
        size = None if sizes is None else [sizes[i - 1]]
        scale = None if scales is None else [scales[i - 1]]
        line = torch.ops.aten.upsample_linear1d.vec(units, size, align_corners, scale)[:, 0]
        reader.computed(line)
        reader.out = (*shape[:i], result[i], *shape[i + 1 :])
        labels = (names, f"{names[i]}z", names.replace(names[i], "z"))
        x = _contracted(reader, x, line.double(), labels)
    return x


def _alone(x: Any, weight: Any, bias: Any) -> None:
    if not isinstance(x, Activation) or isinstance(weight, Activation):
        if isinstance(x, Activation):
            raise refusal(PRODUCT)
        raise refusal("weights that depend on the image")
    if isinstance(bias, Activation):
        raise refusal("weights that depend on the image")


AFFINE: Mapping[str, Handler] = {
    "_convolution": _convolution,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "add": _add,
    "addmm": _addmm,
    "baddbmm": _addmm,
    "bmm": _matmul,
    "convolution": _convolution,
    "div": _div,
    "einsum": _einsum,
    "linear": _linear,
    "matmul": _matmul,
    "mm": _matmul,
    "mul": _mul,
    "neg": _neg,
    "rsub": _rsub,
    "sub": _sub,
    "upsample_bilinear2d": _interpolated,
    "upsample_linear1d": _interpolated,
    "upsample_trilinear3d": _interpolated,
    "where": _where,
}
