"""The gradient in the image of a strided convolution of few channels, on a CPU."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Vector units take sixteen channels at once. Of three, a gradient leaves thirteen idle: with 64
# images it took 7 to 11 times the forward pass, and 2 to 4 times by sub-pixels.
_FEW_CHANNELS = 8


def gains(layer: nn.Conv2d) -> bool:
    """Whether a plain convolution on a CPU has a faster gradient as :class:`Strided`."""
    return layer.in_channels < _FEW_CHANNELS and layer.stride[0] == layer.stride[1] > 1


class Strided(nn.Module):
    """A strided convolution of few input channels with a faster gradient.

    With stride ``s``, pixel ``s I + r`` of the padded image takes part in output ``i`` by kernel
    element ``s (I - i) + r`` alone. So the gradient is a convolution of stride one that gives all
    ``s^2`` remainders ``r`` as channels (the sub-pixels), put in order afterwards: the same sums in
    another order. The forward pass is untouched. Weights are taken as they are now, and have no
    gradient.

    Source: the transposed form of Shi et al., "Real-time single image and video super-resolution
    using an efficient sub-pixel convolutional neural network", CVPR 2016.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.stride, self.padding = convolution.stride[0], convolution.padding
        self.register_buffer("back", _turned(convolution.weight.detach(), self.stride))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Convolve.apply(x, self)
        return out


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Strided) -> Tensor:
        ctx.layer, ctx.size = layer, x.shape[-2:]
        return F.conv2d(x, layer.weight, layer.bias, layer.stride, layer.padding)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        layer = ctx.layer
        rows, columns = layer.back.shape[-2:]
        parts = F.conv2d(slopes[0], layer.back, padding=(rows - 1, columns - 1))
        padded = F.pixel_shuffle(parts, layer.stride)
        (down, across), (height, width) = layer.padding, ctx.size
        below = max(0, height + down - padded.shape[-2])
        beyond = max(0, width + across - padded.shape[-1])
        padded = F.pad(padded, (0, beyond, 0, below))
        return padded[..., down : down + height, across : across + width], None


def _turned(weight: Tensor, s: int) -> Tensor:
    """Kernels ``(o, c, a, b)`` as ``(c s^2, o, ceil(a / s), ceil(b / s))``, turned round."""
    out, channels, high, wide = weight.shape
    padded = F.pad(weight, (0, -wide % s, 0, -high % s))
    split = padded.reshape(out, channels, -(-high // s), s, -(-wide // s), s)
    parts = split.permute(1, 3, 5, 0, 2, 4).reshape(channels * s * s, out, *split.shape[2:5:2])
    return parts.flip(2, 3).contiguous()
