"""A forward pass of sums over paths: each operation of a network on squares of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_map

from robaudit.errors import NotMeasuredError


class Paths(Tensor):
    """For each unit the sum, over the paths that end there, of the products of squared weights.

    Operations on it are those on the units themselves, carried out on sums over paths. One that is
    not known to be linear, or piecewise linear with known edges, raises.
    """

    @property
    def plain(self) -> Tensor:
        """The sums as an ordinary tensor that shares the memory."""
        with torch._C.DisableTorchFunctionSubclass():
            return self.as_subclass(Tensor)

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name: str = getattr(func, "__name__", "a compiled part").strip("_")
        kwargs = dict(kwargs or {})
        with torch._C.DisableTorchFunctionSubclass():
            if name in _ASKED:
                return tree_map(_wrapped, func(*_bare(args), **_bare(kwargs)))
            if name in _MOVED:
                made = func(*_bare(args), **_bare(kwargs))
            elif name in _RULES:
                made = _RULES[name](func, *args, **kwargs)
            else:
                raise NotMeasuredError(
                    f"the path norm is not defined for this network: it has {name}"
                )
            if _in_place(func) and isinstance(args[0], Paths) and name not in _MOVED:
                args[0].as_subclass(Tensor).copy_(made)
                return args[0]
        return tree_map(_wrapped, made)


def _in_place(func: Callable[..., Any]) -> bool:
    name: str = getattr(func, "__name__", "")
    dunder = name.startswith("__")
    return name.startswith("__i") if dunder else name.endswith("_")


def _wrapped(value: Any) -> Any:
    return value.as_subclass(Paths) if isinstance(value, Tensor) else value


def _bare(tree: Any) -> Any:
    return tree_map(lambda v: v.as_subclass(Tensor) if isinstance(v, Paths) else v, tree)


# Questions about a tensor, and operations that only move or copy units.
_ASKED = frozenset(
    (
        *("get", "size", "dim", "ndimension", "numel", "nelement", "len", "is_floating_point"),
        *("stride", "is_contiguous", "element_size", "get_device", "is_complex", "hash"),
    )
)
_MOVED = frozenset(
    (
        *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "squeeze"),
        *("unsqueeze", "contiguous", "clone", "detach", "to", "double", "type", "chunk", "split"),
        *("unbind", "getitem", "expand", "movedim", "swapaxes", "narrow", "select", "flip", "roll"),
        *("repeat", "view_as", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle"),
    )
)


def _square(value: Any) -> Any:
    """Of a weight, a bias or a number; two sums over paths are never multiplied."""
    if isinstance(value, Paths):
        raise NotMeasuredError(
            "the path norm is not defined for this network: it multiplies units by units"
        )
    return None if value is None else value * value


def _weighted(func: Any, x: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Any:
    """A convolution or a linear layer, by name."""
    if not isinstance(x, Paths):
        raise NotMeasuredError(
            "the path norm is not defined for this network: it computes its weights from units"
        )
    return func(_bare(x), _square(weight), _square(bias), *args, **kwargs)


def _product(func: Any, a: Any, b: Any) -> Any:
    if isinstance(a, Paths):
        return func(_bare(a), _square(b))
    return func(_square(a), _bare(b))


def _sum_of_two(_: Any, a: Any, b: Any, *, alpha: float = 1) -> Any:
    return _term(a) + alpha * alpha * _term(b)


def _term(value: Any) -> Any:
    return _bare(value) if isinstance(value, Paths) else _square(value)


def _times(_: Any, a: Any, b: Any) -> Any:
    return _bare(a) * _square(b) if isinstance(a, Paths) else _square(a) * _bare(b)


def _over(_: Any, a: Any, b: Any) -> Any:
    return _bare(a) / _square(b)


def _same(_: Any, x: Any, inplace: bool = False) -> Any:
    # A copy where the network has one: it may write to either later.
    return _bare(x) if inplace else _bare(x).clone()


def _leaky(_: Any, x: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    if abs(negative_slope) > 1:
        raise NotMeasuredError("the path norm is not defined for a leaky ReLU of slope above one")
    return _same(_, x, inplace)


def _dropout(_: Any, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if training and p > 0:
        raise NotMeasuredError("the path norm is not defined for a network that drops units")
    return _bare(x)


def _batch_norm(
    _: Any,
    x: Any,
    mean: Tensor | None,
    var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if training or mean is None or var is None:
        raise NotMeasuredError("the path norm is not defined for statistics of the batch")
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    shift = (0 if bias is None else bias) - mean * scale
    shape = (1, -1, *[1] * (x.dim() - 2))
    return _bare(x) * scale.square().view(shape) + shift.square().view(shape)


def _pad(func: Any, x: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Any:
    return func(_bare(x), pad, mode, None if value is None else value * value)


def _cat(func: Any, tensors: Any, *args: Any, **kwargs: Any) -> Any:
    return func([_term(one) for one in tensors], *args, **kwargs)


def _mean(_: Any, x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    x = _bare(x)
    total = x.sum() if dim is None else x.sum(dim, keepdim)
    return total / (x.numel() / total.numel()) ** 2


def _sum(_: Any, x: Any, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    return _bare(x).sum() if dim is None else _bare(x).sum(dim, keepdim)


def _summed(x: Tensor, size: Any, stride: Any, padding: Any, ceil_mode: bool) -> Tensor:
    """Sums over the windows of a pooling of images."""
    return F.avg_pool2d(x, size, stride, padding, ceil_mode, divisor_override=1)


def _max_pool(
    _: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    if return_indices or dilation not in (1, (1, 1), [1, 1]):
        raise NotMeasuredError("the path norm is not defined for dilated max pooling")
    return _summed(_bare(x), kernel_size, stride or None, padding, ceil_mode)


def _avg_pool(
    func: Any,
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    x, window = _bare(x), (kernel_size, stride or None, padding, ceil_mode)
    ones = torch.ones_like(x[:1, :1])
    mean = func(ones, *window, count_include_pad, divisor_override)
    divisor = _summed(ones, *window) / mean
    return _summed(x, *window) / divisor.square()


def _adaptive_sum(x: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """Sums over the windows of an adaptive pooling of images, and the windows' sizes."""
    asked = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    have = x.shape[-2:]
    want = [size if out is None else out for size, out in zip(have, asked, strict=True)]
    tall, wide = (
        torch.tensor(
            [math.ceil((i + 1) * size / out) - i * size // out for i in range(out)],
            dtype=x.dtype,
            device=x.device,
        )
        for size, out in zip(have, want, strict=True)
    )
    sizes = tall[:, None] * wide
    return F.adaptive_avg_pool2d(x, (len(tall), len(wide))) * sizes, sizes


def _adaptive_avg(_: Any, x: Any, output_size: Any) -> Any:
    total, sizes = _adaptive_sum(_bare(x), output_size)
    return total / sizes.square()


def _adaptive_max(_: Any, x: Any, output_size: Any, return_indices: bool = False) -> Any:
    return _adaptive_sum(_bare(x), output_size)[0]


_RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("conv1d", "conv2d", "conv3d", "linear"), _weighted),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _weighted),
    **dict.fromkeys(("matmul", "mm", "rmatmul"), _product),
    **dict.fromkeys(("add", "iadd", "radd", "sub", "isub", "rsub"), _sum_of_two),
    **dict.fromkeys(("mul", "imul", "rmul", "multiply"), _times),
    **dict.fromkeys(("div", "truediv", "idiv", "itruediv", "divide"), _over),
    **dict.fromkeys(("relu", "neg"), _same),
    **dict.fromkeys(("cat", "concat", "stack"), _cat),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    "leaky_relu": _leaky,
    "batch_norm": _batch_norm,
    "pad": _pad,
    "mean": _mean,
    "sum": _sum,
    "max_pool2d": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg,
    "adaptive_max_pool2d": _adaptive_max,
}
