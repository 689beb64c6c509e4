"""Wide residual networks with the two common sets of keys.

Source: S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016. :func:`wide_resnet` has
``block1.layer.0.convShortcut`` and ``fc``, as TRADES, AWP, MART, Rice et al. and RobustBench;
:func:`wide_resnet_layers` has ``layer1.0.shortcut.0`` and ``linear``, as meliketoy's
wide-resnet.pytorch and what derives from it.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import PooledFlatten, activation, conv, one_of


class _Block(nn.Module):
    """Where the width changes, the shortcut starts behind the first activation."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation(act)
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation(act)
        self.conv2 = conv(outputs, outputs, 3)
        self.resized = inputs != outputs
        self.convShortcut = conv(inputs, outputs, 1, stride) if self.resized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.act1(self.bn1(x))
        inner = self.conv2(self.act2(self.bn2(self.conv1(active))))
        out: Tensor = inner + self.convShortcut(active if self.resized else x)
        return out


def _stage(count: int, inputs: int, outputs: int, stride: int, act: str) -> nn.Sequential:
    blocks = [
        _Block(outputs if i else inputs, outputs, 1 if i else stride, act) for i in range(count)
    ]
    return nn.Sequential(OrderedDict([("layer", nn.Sequential(*blocks))]))


class WideResNet(nn.Module):
    """Stem, three stages of blocks, batch norm, activation, pooling, linear head."""

    def __init__(
        self,
        count: int,
        sizes: tuple[int, int, int, int],
        act: str,
        sub_block: bool,
        bias: bool,
        pooled: int,
    ) -> None:
        super().__init__()
        classes, channels, stem, width = sizes
        widths = [stem, width, 2 * width, 4 * width]
        self.conv1 = conv(channels, stem, 3)
        self.block1 = _stage(count, widths[0], widths[1], 1, act)
        if sub_block:  # there in some state dicts and in no forward pass
            self.sub_block1 = _stage(count, widths[0], widths[1], 1, act)
        self.block2 = _stage(count, widths[1], widths[2], 2, act)
        self.block3 = _stage(count, widths[2], widths[3], 2, act)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.act1 = activation(act)
        self.flatten = PooledFlatten(pooled)
        self.fc = nn.Linear(widths[3] * pooled**2, classes, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        logits: Tensor = self.fc(self.flatten(self.act1(self.bn1(x))))
        return logits


def blocks_of(depth: int) -> int:
    """Blocks a stage of a wide residual network of this depth, ``(depth - 4) / 6``.

    Raises:
        ValueError: it is no whole number.
    """
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise ValueError(f"depth {depth} is not 4 more than a multiple of 6")
    return count


def wide_resnet(
    depth: int = 34,
    width: int = 10,
    *,
    stem: int = 16,
    sub_block: int = 0,
    bias: str = "yes",
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
    activation: str = "relu",
) -> nn.Module:
    """WRN-``depth``-``width``: stages of ``16 width``, ``32 width`` and ``64 width`` channels.

    Args:
        sub_block: 1 for an unused copy of the first stage, as in some of the older state dicts.
        bias: ``yes``, or ``no`` for a head without.
        pooled: side of the map that enters the head.
    """
    sizes = (classes, channels, stem, 16 * width)
    one_of(("yes", "no"), bias=bias)
    return WideResNet(blocks_of(depth), sizes, activation, bool(sub_block), bias == "yes", pooled)


class _LayersBlock(nn.Module):
    """The shortcut starts from the input; either convolution has the stride."""

    def __init__(
        self, inputs: int, outputs: int, stride: int, act: str, bias: bool, second: bool
    ) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation(act)
        self.conv1 = conv(inputs, outputs, 3, 1 if second else stride, bias)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.act2 = activation(act)
        self.conv2 = conv(outputs, outputs, 3, stride if second else 1, bias)
        resized = stride != 1 or inputs != outputs
        self.shortcut = nn.Sequential(
            conv(inputs, outputs, 1, stride, bias) if resized else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(self.act1(self.bn1(x)))
        inner = self.conv2(self.act2(self.bn2(inner)))
        out: Tensor = inner + self.shortcut(x)
        return out


class WideResNetLayers(nn.Module):
    """Stem, three stages of blocks, batch norm, activation, pooling, linear head."""

    def __init__(
        self,
        count: int,
        sizes: tuple[int, int, int, int],
        act: str,
        bias: tuple[bool, bool],
        second: bool,
        pooled: int,
    ) -> None:
        super().__init__()
        classes, channels, stem, width = sizes
        self.conv1 = conv(channels, stem, 3, bias=bias[0])
        inputs = stem
        for stage in range(3):
            outputs = width << stage
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(_LayersBlock(inputs, outputs, stride, act, bias[1], second))
                inputs = outputs
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.bn1 = nn.BatchNorm2d(inputs)
        self.act1 = activation(act)
        self.flatten = PooledFlatten(pooled)
        self.linear = nn.Linear(inputs * pooled**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.conv1(x)
        for stage in range(3):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        logits: Tensor = self.linear(self.flatten(self.act1(self.bn1(x))))
        return logits


def wide_resnet_layers(
    depth: int = 28,
    width: int = 10,
    *,
    stem: int = 16,
    bias: str = "all",
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
    stride: str = "second",
    activation: str = "relu",
) -> nn.Module:
    """WRN-``depth``-``width`` with meliketoy's keys; arguments as for :func:`wide_resnet`.

    Args:
        bias: which convolutions have one: ``all``, ``stem``, ``blocks`` or ``none``.
        stride: which convolution of a block has the stride: ``first`` or ``second``.
    """
    one_of(("all", "stem", "blocks", "none"), bias=bias)
    one_of(("first", "second"), stride=stride)
    sizes = (classes, channels, stem, 16 * width)
    biases = (bias in ("all", "stem"), bias in ("all", "blocks"))
    return WideResNetLayers(blocks_of(depth), sizes, activation, biases, stride == "second", pooled)
