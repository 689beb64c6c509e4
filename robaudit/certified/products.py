"""Affine maps that multiply by constant tensors: convolutions, matrices and their like."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from robaudit.certified.operators import Affine, Shape

_CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


@dataclass(frozen=True, eq=False)
class Convolution(Affine):
    """A convolution of ``(channels, *map)``, or its adjoint where ``transposed``.

    Attributes:
        weight: as torch has it: ``(outputs, inputs / groups, *kernel)``, of a transposed one
            ``(inputs, outputs / groups, *kernel)``.
        bias: per output channel.
    """

    weight: Tensor
    bias: Tensor | None
    stride: Shape
    padding: Shape
    dilation: Shape
    groups: int
    transposed: bool = False

    def __call__(self, *x: Tensor) -> Tensor:
        return self._forward(x[0], self.weight, self.bias)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self._forward(
            x[0], self.weight.abs(), None if self.bias is None else self.bias.abs()
        )

    def radius(self, *r: Tensor) -> Tensor:
        return self._forward(r[0], self.weight.abs(), None)

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (self._apply(a, self.weight, None, not self.transposed),)

    def constant(self) -> Tensor | None:
        if self.bias is None:
            return None
        return self.bias.reshape(-1, *(1 for _ in self.shape[1:])).expand(self.shape)

    @property
    def terms(self) -> int:
        return self._terms[self.transposed] + (self.bias is not None)

    @property
    def adjoint_terms(self) -> int:
        return self._terms[not self.transposed]

    @cached_property
    def _terms(self) -> tuple[int, int]:
        """Of the convolution and of the transposed convolution with this weight."""
        kernel = self.weight.shape[2:]
        # An element enters the windows at multiples of the stride in which some tap meets it.
        taps = (
            math.ceil(k / (s // math.gcd(s, d)))
            for k, s, d in zip(kernel, self.stride, self.dilation, strict=True)
        )
        outputs = self.weight.shape[0] // self.groups
        return self.weight.shape[1] * math.prod(kernel), outputs * math.prod(taps)

    def _forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._apply(x, weight, bias, self.transposed)

    def _apply(self, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        dims = len(self.stride)
        weight = weight.to(x.dtype)
        bias = None if bias is None else bias.to(x.dtype)
        if not transposed:
            done: Tensor = _CONVOLUTIONS[dims](
                x, weight, bias, self.stride, self.padding, self.dilation, self.groups
            )
            return done
        wide = self.shape[1:] if self.transposed else self.inputs[0][1:]
        narrow = x.shape[2:]
        left = tuple(
            w - ((n - 1) * s - 2 * p + d * (k - 1) + 1)
            for w, n, s, p, d, k in zip(
                wide,
                narrow,
                self.stride,
                self.padding,
                self.dilation,
                weight.shape[2:],
                strict=True,
            )
        )
        done = _TRANSPOSED[dims](
            x, weight, bias, self.stride, self.padding, left, self.groups, self.dilation
        )
        return done


@dataclass(frozen=True, eq=False)
class Dense(Affine):
    """``W x + b`` in the last dimension.

    Attributes:
        weight: ``(outputs, inputs)``.
    """

    weight: Tensor
    bias: Tensor | None

    def __call__(self, *x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x[0].dtype)
        return F.linear(x[0], self.weight.to(x[0].dtype), bias)

    def magnitude(self, *x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.abs().to(x[0].dtype)
        return F.linear(x[0], self.weight.abs().to(x[0].dtype), bias)

    def radius(self, *r: Tensor) -> Tensor:
        return F.linear(r[0], self.weight.abs().to(r[0].dtype))

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        return (a @ self.weight.to(a.dtype),)

    def constant(self) -> Tensor | None:
        return None if self.bias is None else self.bias.expand(self.shape)

    @property
    def terms(self) -> int:
        return self.weight.shape[1] + (self.bias is not None)

    @property
    def adjoint_terms(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True, eq=False)
class Contraction(Affine):
    """A sum of products with a constant tensor over some dimensions, without a constant term.

    Attributes:
        labels: of the dimensions of the input, the constant tensor and the output, one letter each
            and without the batch dimension, as in ``torch.einsum``; every label of the input is one
            of the constant tensor or the output.
    """

    weight: Tensor
    labels: tuple[str, str, str]

    def __call__(self, *x: Tensor) -> Tensor:
        return self._product(x[0], self.weight)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self.radius(*x)

    def radius(self, *r: Tensor) -> Tensor:
        return self._product(r[0], self.weight.abs())

    def adjoint(self, a: Tensor) -> tuple[Tensor, ...]:
        x, w, out = self.labels
        return (torch.einsum(f"...{out},{w}->...{x}", a, self.weight.to(a.dtype)),)

    @property
    def terms(self) -> int:
        return self._summed_for(self.labels[2])

    @property
    def adjoint_terms(self) -> int:
        return self._summed_for(self.labels[0])

    def _product(self, x: Tensor, weight: Tensor) -> Tensor:
        inside, w, out = self.labels
        return torch.einsum(f"...{inside},{w}->...{out}", x, weight.to(x.dtype))

    def _summed_for(self, kept: str) -> int:
        sizes = zip(self.labels[1], self.weight.shape, strict=True)
        return math.prod(size for label, size in sizes if label not in kept)
