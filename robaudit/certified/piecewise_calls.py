"""Reads activation functions and maxima, which become affine maps, ReLUs and tanhs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from robaudit.certified.exported import refusal
from robaudit.certified.operators import CommonTerm, Reshape
from robaudit.certified.reader import Activation, Handler, Reader
from robaudit.certified.rewriting import Builder


def _relu(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.relu(x.index))


def _tanh(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.tanh(x.index))


def _sigmoid(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.sigmoid(x.index))


def _hard_sigmoid(reader: Reader, x: Activation) -> Activation:
    """``relu6(x + 3) / 6``."""
    build = reader.build
    clamped = build.clamped(build.weighted([x.index], [None], 3.0), 0.0, 6.0)
    return Activation(build.weighted([clamped], [1 / 6]))


def _absolute(reader: Reader, x: Activation) -> Activation:
    return Activation(reader.build.absolute(x.index))


def _leaky_relu(reader: Reader, x: Activation, slope: float = 0.01) -> Activation:
    return Activation(reader.build.leaky_relu(x.index, slope))


def _prelu(reader: Reader, x: Activation, slope: Any) -> Activation:
    if isinstance(slope, Activation):
        raise refusal("a slope that depends on the image")
    column = slope.reshape(-1, *(1 for _ in reader.shape(x)[1:]))
    return Activation(reader.build.leaky_relu(x.index, column))


def _rrelu(
    reader: Reader, x: Activation, lower: float, upper: float, training: bool, *_: Any
) -> Activation:
    if training:
        raise refusal("random numbers")
    return _leaky_relu(reader, x, (lower + upper) / 2)


def _threshold(reader: Reader, x: Activation, threshold: float, value: float) -> Activation:
    if threshold != value:
        raise refusal("a threshold, which is not continuous")
    return Activation(reader.build.at_least(x.index, float(threshold)))


def _clamp(reader: Reader, x: Any, low: Any = None, high: Any = None) -> Any:
    found = x if low is None else _maximum(reader, x, low)
    return found if high is None else _minimum(reader, found, high)


def _of_two(
    of_nodes: Callable[[Builder, int, int], int], of_constant: Callable[[Builder, int, Any], int]
) -> Handler:
    """A function of two arguments in any order, at least one of which is an activation."""

    def handler(reader: Reader, x: Any, y: Any) -> Activation:
        x, y = (x, y) if isinstance(x, Activation) else (y, x)
        first = reader.broadcast(x).index
        if isinstance(y, Activation):
            return Activation(of_nodes(reader.build, first, reader.broadcast(y).index))
        constant = reader.constant_row(y, len(reader.out))
        return Activation(of_constant(reader.build, first, constant))

    return handler


_maximum = _of_two(Builder.maximum, Builder.at_least)
_minimum = _of_two(Builder.minimum, Builder.at_most)


def _largest(reader: Reader, x: Activation, dims: Any, keep: bool = False) -> Activation:
    """The maximum over dimensions."""
    found = x.index
    for dim in dims if isinstance(dims, Sequence) else [dims]:
        at = reader.dim(x, dim)
        found = reader.build.largest_in_windows(found, at, [range(reader.shape(x)[at])])
    if reader.build.shape(found) == reader.out:
        return Activation(found)
    return reader.affine(Reshape((reader.build.shape(found),), reader.out), Activation(found))


def _smallest(reader: Reader, x: Activation, dims: Any, keep: bool = False) -> Activation:
    """``-max(-x)``."""
    negative = Activation(reader.build.weighted([x.index], [-1.0]))
    found = _largest(reader, negative, dims, keep)
    return Activation(reader.build.weighted([found.index], [-1.0]))


def _largest_of(reader: Reader, x: Activation, *rest: Any) -> tuple[Activation, None]:
    return _largest(reader, x, *rest), None


def _smallest_of(reader: Reader, x: Activation, *rest: Any) -> tuple[Activation, None]:
    return _smallest(reader, x, *rest), None


def _max_pooled(dims: int) -> Handler:
    """Max pooling over the last dimensions, one after another."""

    def handler(
        reader: Reader, x: Activation, kernel: Sequence[int], stride: Sequence[int],
        padding: Sequence[int], dilation: Sequence[int], _: bool,
    ) -> tuple[Activation, None]:  # fmt: skip
        found, out = x.index, reader.out

        def of(value: Sequence[int], dim: int) -> int:
            return value[dim] if len(value) == dims else value[0]

        for dim in range(dims):
            at = len(out) - dims + dim
            size, step = reader.shape(x)[at], of(stride or kernel, dim)
            taps = [of(dilation, dim) * j - of(padding, dim) for j in range(of(kernel, dim))]
            starts = range(0, step * out[at], step)
            windows = [[s + tap for tap in taps if 0 <= s + tap < size] for s in starts]
            if not all(windows):
                raise refusal("the maximum of a window outside of its map")
            found = reader.build.largest_in_windows(found, at, windows)
        return Activation(found), None

    return handler


def _adaptively_max_pooled(dims: int) -> Handler:
    def handler(reader: Reader, x: Activation, _: Sequence[int]) -> tuple[Activation, None]:
        found = x.index
        for at in range(len(reader.out) - dims, len(reader.out)):
            size, outputs = reader.shape(x)[at], reader.out[at]
            # Windows begin and end at rounded places.
            windows = [
                range(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)
            ]
            found = reader.build.largest_in_windows(found, at, windows)
        return Activation(found), None

    return handler


def _log_softmax(reader: Reader, x: Activation, dim: int, *_: Any) -> Activation:
    """The logits themselves: others than the last are refused before this."""
    if len(reader.shape(x)) != 1 or reader.dim(x, dim) != 0:
        raise refusal("log-softmax inside the network")
    return reader.affine(CommonTerm((reader.shape(x),), reader.out), x)


PIECEWISE: Mapping[str, Handler] = {
    "_log_softmax": _log_softmax,
    "abs": _absolute,
    "adaptive_max_pool2d": _adaptively_max_pooled(2),
    "adaptive_max_pool3d": _adaptively_max_pooled(3),
    "amax": _largest,
    "amin": _smallest,
    "clamp": _clamp,
    "clamp_max": _minimum,
    "clamp_min": _maximum,
    "hardsigmoid": _hard_sigmoid,
    "hardtanh": _clamp,
    "leaky_relu": _leaky_relu,
    "max": _largest_of,
    "max_pool2d_with_indices": _max_pooled(2),
    "max_pool3d_with_indices": _max_pooled(3),
    "maximum": _maximum,
    "min": _smallest_of,
    "minimum": _minimum,
    "prelu": _prelu,
    "relu": _relu,
    "rrelu": _rrelu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "threshold": _threshold,
}
