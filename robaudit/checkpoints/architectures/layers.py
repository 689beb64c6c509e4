"""What the residual families share: activations, shortcuts, pooling."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU}


def activation(name: str) -> nn.Module:
    """A new activation layer, never in place.

    Raises:
        ValueError: the name is none of :data:`ACTIVATIONS`.
    """
    one_of(ACTIVATIONS, activation=name)
    return ACTIVATIONS[name]()


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, bias: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size of the map but for its stride."""
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


def one_of(known: Iterable[str], **argument: str) -> None:
    """Check an argument, given under its name.

    Raises:
        ValueError: it is none of those known.
    """
    for name, value in argument.items():
        if value not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")


class PooledFlatten(nn.Module):
    """Average over the map, to a ``side`` x ``side`` one, and flatten.

    Raises:
        ValueError: on a map smaller than that, which adaptive pooling would blow up.
    """

    def __init__(self, side: int = 1) -> None:
        super().__init__()
        self.side = side
        self.pool = nn.AdaptiveAvgPool2d(side)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[-2:]) < self.side:
            raise ValueError(f"the map is {tuple(x.shape[-2:])}, smaller than {self.side}")
        out: Tensor = self.pool(x).flatten(1)
        return out


class ZeroPaddedShortcut(nn.Module):
    """Every second pixel, with zeros for the new channels: no weights.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (option A).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.before = (outputs - inputs) // 2
        self.after = outputs - inputs - self.before
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class SamePad(nn.Module):
    """The padding TensorFlow calls SAME for an even map and a 3x3 kernel.

    At stride 1 a border of one; at stride 2 one row and one column at the end only.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.border = (1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.border)
