"""Residual networks in their CIFAR forms: a 3x3 stem, and the first stage at full resolution.

Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. The keys are those
of the two code bases most checkpoints come from: ``shortcut`` and ``linear`` as in kuangliu's
pytorch-cifar (:func:`resnet`; TRADES, MadryLab's robustness and RobustBench have the same),
``downsample`` and ``fc`` as in torchvision (:func:`cifar_resnet`).
"""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import (
    PooledFlatten,
    ZeroPaddedShortcut,
    activation,
    conv,
    one_of,
)
from robaudit.checkpoints.architectures.stages import EXPANSION, stages


class _Block(nn.Module):
    """Convolutions with batch norm and activation, and the sum with their input.

    ``basic``: 3x3 (with the stride), 3x3. ``bottleneck``: 1x1, 3x3 (with the stride), 1x1.
    """

    def __init__(
        self,
        kind: str,
        inputs: int,
        width: int,
        stride: int,
        act: str,
        shortcut: tuple[str, nn.Module],
    ) -> None:
        super().__init__()
        if kind == "basic":
            convs = [conv(inputs, width, 3, stride), conv(width, width, 3)]
        else:
            outputs = EXPANSION[kind] * width
            convs = [conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1)]
        for i, layer in enumerate(convs, 1):
            self.add_module(f"conv{i}", layer)
            self.add_module(f"bn{i}", nn.BatchNorm2d(layer.out_channels))
            self.add_module(f"act{i}", activation(act))
        self.count = len(convs)
        self.shortcut_name = shortcut[0]
        self.add_module(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for i in range(1, self.count + 1):
            inner = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(inner))
            if i < self.count:
                inner = self.get_submodule(f"act{i}")(inner)
        out: Tensor = inner + self.get_submodule(self.shortcut_name)(x)
        out = self.get_submodule(f"act{self.count}")(out)
        return out


class ResNet(nn.Module):
    """Stem, stages of blocks (each but the first at half the resolution), pooling, linear head."""

    def __init__(
        self,
        blocks: tuple[str, list[int]],
        names: tuple[str, str],
        sizes: tuple[int, int, int, int],
        act: str,
        shortcuts: str,
        pool: nn.Module,
        pooled: int,
    ) -> None:
        super().__init__()
        kind, counts = blocks
        shortcut, self.head = names
        classes, channels, stem, width = sizes
        self.conv1 = conv(channels, stem, 3)
        self.bn1 = nn.BatchNorm2d(stem)
        self.act1 = activation(act)
        self.pool = pool
        inputs = stem
        self.stages = [f"layer{stage + 1}" for stage in range(len(counts))]
        for stage, count in enumerate(counts):
            outputs = EXPANSION[kind] * (width << stage)
            layers = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                way = _shortcut(inputs, outputs, stride, shortcuts)
                layers.append(_Block(kind, inputs, width << stage, stride, act, (shortcut, way)))
                inputs = outputs
            self.add_module(self.stages[stage], nn.Sequential(*layers))
        self.flatten = PooledFlatten(pooled)
        self.add_module(self.head, nn.Linear(inputs * pooled**2, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.pool(self.act1(self.bn1(self.conv1(x))))
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.get_submodule(self.head)(self.flatten(x))
        return logits


def resnet(
    depth: int = 18,
    *,
    blocks: str = "",
    width: int = 64,
    stem: int = 0,
    shortcuts: str = "conv",
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
    activation: str = "relu",
) -> nn.Module:
    """A residual network with the keys of kuangliu's pytorch-cifar.

    Args:
        depth: names the blocks (:data:`~.stages.DEPTHS`); ``blocks`` names them itself.
        width: of the first stage, doubled in each that follows; ``stem`` is the stem's, 0 for the
            same.
        shortcuts: ``conv``, or ``pad`` for zeros in place of weights (the paper's option A).
        pooled: side of the map that enters the head.
    """
    one_of(("conv", "pad"), shortcuts=shortcuts)
    return ResNet(
        stages(depth, blocks),
        ("shortcut", "linear"),
        (classes, channels, stem or width, width),
        activation,
        shortcuts,
        nn.Identity(),
        pooled,
    )


def cifar_resnet(
    depth: int = 18,
    *,
    blocks: str = "",
    width: int = 64,
    stem: int = 0,
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
    maxpool: str = "none",
    activation: str = "relu",
) -> nn.Module:
    """A residual network with torchvision's keys and a 3x3 stem; arguments as for :func:`resnet`.

    Args:
        maxpool: ``none``, or ``3x3`` for torchvision's max pooling after the stem.
    """
    one_of(("none", "3x3"), maxpool=maxpool)
    return ResNet(
        stages(depth, blocks),
        ("downsample", "fc"),
        (classes, channels, stem or width, width),
        activation,
        "conv",
        nn.Identity() if maxpool == "none" else nn.MaxPool2d(3, 2, padding=1),
        pooled,
    )


def _shortcut(inputs: int, outputs: int, stride: int, kind: str) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return ZeroPaddedShortcut(inputs, outputs, stride)
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
