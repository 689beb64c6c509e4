"""Wide 3 x 3 convolutions with fewer multiplications, on a CPU."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# F(4 x 4, 3 x 3): each tile of 4 x 4 outputs is computed from 6 x 6 inputs with 36 multiplications
# per pair of channels instead of 144. The three transforms of Lavin & Gray, section 4.3.
_INPUT = (
    (4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1),
)  # fmt: skip
_WEIGHT = (
    (1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1),
)  # fmt: skip
_OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))
_TILE = 4
# The product that enters all sixteen outputs with weight one.
_EVEN = 7

# With few channels the transforms cost more than they save: on a CPU, 64 images took 0.82, 0.60 and
# 0.57 of the direct time with 128, 256 and 512 channels, and more than that with 64.
_CHANNELS = 128
# Largest ratio of the tiles' area to the image's; 1.31 for an image of 7 x 7.
_WASTE = 1.4
# Tiles per block: of 32 to 1024, none was faster.
_ROWS = 64


WINOGRAD = "Winograd convolutions"


def with_winograd(network: nn.Module) -> nn.Module | None:
    """A copy of the network with its wide 3 x 3 convolutions replaced by :class:`Winograd`.

    Left alone: convolutions on a GPU, in another precision than float32, of a subclass, in groups,
    strided, dilated, with other padding than one zero, and those with hooks.

    Returns:
        the copy, or ``None`` where no convolution gains.
    """
    names = [name for name, layer in network.named_modules() if _gains(layer)]
    if not names:
        return None
    made = copy.deepcopy(network)
    for name in names:
        layer = made.get_submodule(name)
        assert isinstance(layer, nn.Conv2d)
        if not name:
            return Winograd(layer)
        parent, _, last = name.rpartition(".")
        setattr(made.get_submodule(parent), last, Winograd(layer))
    return made.eval().requires_grad_(False)


def _gains(layer: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(layer) is nn.Conv2d
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
        and (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and min(layer.in_channels, layer.out_channels) >= _CHANNELS
        and not (layer._forward_hooks or layer._forward_pre_hooks)
    )


class Winograd(nn.Module):
    """A 3 x 3 convolution by fewer multiplications.

    ``Y = A^T [(G g G^T) * (B^T d B)] A`` for each tile ``d`` of the input and kernel ``g``, summed
    over input channels; the gradient in the input is the same with rotated kernels. Sums of
    other terms: float32 results differ by a few more roundings than those of a direct convolution.
    The current weights are used, and have no gradient.

    Source: Lavin & Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.register_buffer("forth", _transformed(weight))
        self.register_buffer("back", _transformed(weight.flip(2, 3).transpose(0, 1)))

    def forward(self, x: Tensor) -> Tensor:
        down, across = _tiles(x)
        if down * across * _TILE**2 > _WASTE * x.shape[-2] * x.shape[-1]:
            return F.conv2d(x, self.weight, self.bias, padding=1)
        out: Tensor = _Convolve.apply(x, self.forth, self.back, self.bias)
        return out


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Tensor, back: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(back)
        return _convolved(x, forth, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        (back,) = ctx.saved_tensors
        return _convolved(slopes[0], back), None, None, None


def _transformed(weight: Tensor) -> Tensor:
    """Kernels ``(o, c, 3, 3)`` as ``(36, c, o)``."""
    rows = weight.permute(2, 3, 1, 0).reshape(9, -1)
    return (_twice(_WEIGHT) @ rows).view(36, weight.shape[1], weight.shape[0])


def _convolved(x: Tensor, kernels: Tensor, bias: Tensor | None = None) -> Tensor:
    """``(n, c, h, w)`` to ``(n, o, h, w)`` in channels-last order."""
    (n, _, h, w), (_, channels, out) = x.shape, kernels.shape
    down, across = _tiles(x)
    below, beyond = 1 + down * _TILE - h, 1 + across * _TILE - w
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, beyond, 1, below))
    image, row, column, channel = padded.stride()
    own = _divisor(n, _ROWS // (down * across))
    blocks = n // own
    tiles = padded.as_strided(
        (blocks, 6, 6, own, down, across, channels),
        (own * image, row, column, image, _TILE * row, _TILE * column, channel),
    )
    spread = _each(_INPUT, tiles.reshape(blocks, 36, -1)).view(blocks, 36, -1, channels)
    products = x.new_empty(blocks, 36, own * down * across, out)
    for block, product in zip(spread, products, strict=True):
        torch.bmm(block, kernels, out=product)
    if bias is not None:
        products[:, _EVEN] += bias
    gathered = _each(_OUTPUT, products.view(blocks, 36, -1))
    pixels = gathered.view(blocks, _TILE, _TILE, own, down, across, out).permute(
        0, 3, 4, 1, 5, 2, 6
    )
    whole = pixels.reshape(n, down * _TILE, across * _TILE, out)
    return whole[:, :h, :w].permute(0, 3, 1, 2)


def _divisor(n: int, wanted: int) -> int:
    """The smallest divisor of ``n`` of at least ``wanted``: images per block."""
    return next(k for k in range(max(1, min(n, wanted)), n + 1) if n % k == 0)


def _tiles(x: Tensor) -> tuple[int, int]:
    """The number of tiles that cover an image, vertically and horizontally."""
    return -(-x.shape[-2] // _TILE), -(-x.shape[-1] // _TILE)


def _each(matrix: tuple[tuple[float, ...], ...], blocks: Tensor) -> Tensor:
    """Each block ``(36, m)`` transformed."""
    return torch.bmm(_twice(matrix).expand(len(blocks), -1, -1), blocks)


@cache
def _twice(matrix: tuple[tuple[float, ...], ...]) -> Tensor:
    """The transform along rows and columns as one matrix."""
    one = torch.tensor(matrix, dtype=torch.float64)
    return torch.kron(one, one).float()
