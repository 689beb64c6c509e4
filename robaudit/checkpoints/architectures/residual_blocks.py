"""The residual blocks of the networks that verification is tried on, with and without batch norm.

Their flags: ``b`` for batch norm behind each convolution, ``n`` for convolutions without a bias,
``c`` for a 1x1 convolution on the shortcut, ``d`` where that is called ``downsample``.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def _convolutions(
    inputs: int, outputs: int, kernel: int, stride: int, bias: bool
) -> tuple[nn.Conv2d, nn.Conv2d]:
    """Two that keep the map's size but for the stride; of an even kernel only the first is padded.

    Source: the blocks of S. Wang et al., "Beta-CROWN", NeurIPS 2021 (kernels 1 to 3).
    """
    first, second = (1, 0) if kernel == 2 else (kernel // 2, kernel // 2)
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, first, bias=bias),
        nn.Conv2d(outputs, outputs, kernel, 1, second, bias=bias),
    )


def _shortcut(inputs: int, outputs: int, stride: int, flags: str) -> list[nn.Module]:
    if "c" not in flags:
        if stride != 1 or inputs != outputs:
            raise ValueError("a block that changes the map needs a convolution on its shortcut")
        return []
    conv = nn.Conv2d(inputs, outputs, 1, stride, bias="n" not in flags)
    return [conv, nn.BatchNorm2d(outputs)] if "b" in flags else [conv]


class ResidualBlock(nn.Module):
    """``conv1``, ``bn1``, activation, ``conv2``, ``bn2``; the sum with the shortcut; activation."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        flags: str,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolutions(inputs, outputs, kernel, stride, "n" not in flags)
        self.bn1: nn.Module = nn.BatchNorm2d(outputs) if "b" in flags else nn.Identity()
        self.bn2: nn.Module = nn.BatchNorm2d(outputs) if "b" in flags else nn.Identity()
        self.act1, self.act2 = activation(), activation()
        self.way = "downsample" if "d" in flags else "shortcut"
        self.add_module(self.way, nn.Sequential(*_shortcut(inputs, outputs, stride, flags)))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        out: Tensor = self.act2(inner + self.get_submodule(self.way)(x))
        return out


class PathBlock(nn.Module):
    """The same function with the keys of mn-bab: ``path_b`` is the convolutions', ``path_a`` the
    shortcut's, which begins with a layer that does nothing.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int,
        flags: str,
        activation: Callable[[], nn.Module],
    ) -> None:
        super().__init__()
        first, second = _convolutions(inputs, outputs, kernel, stride, "n" not in flags)
        norms = [nn.BatchNorm2d(outputs) for _ in range(2 if "b" in flags else 0)]
        self.path_b = nn.Sequential(first, *norms[:1], activation(), second, *norms[1:])
        self.path_a = nn.Sequential(nn.Identity(), *_shortcut(inputs, outputs, stride, flags))
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.path_a(x) + self.path_b(x))
        return out
