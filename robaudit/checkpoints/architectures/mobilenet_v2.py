"""MobileNetV2 in kuangliu's CIFAR form: the stem and the second stage keep the resolution.

Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, with
ReLU in place of ReLU6 and a shortcut wherever the stride is 1, as in that code base.
"""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import PooledFlatten, conv

_STEM, _LAST = 32, 1280
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion, outputs, blocks and stride of each stage."""


class _Block(nn.Module):
    """Expand, filter each channel by itself, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inputs
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if self.residual and inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.residual else out


class MobileNetV2(nn.Module):
    """Stem, seven stages of blocks, a 1x1 convolution, average pooling, linear head."""

    def __init__(self, classes: int, channels: int, pooled: int) -> None:
        super().__init__()
        self.conv1 = conv(channels, _STEM, 3)
        self.bn1 = nn.BatchNorm2d(_STEM)
        self.act1 = nn.ReLU()
        blocks = []
        inputs = _STEM
        for expansion, outputs, count, stride in STAGES:
            for i in range(count):
                blocks.append(_Block(inputs, outputs, expansion, 1 if i else stride))
                inputs = outputs
        self.layers = nn.Sequential(*blocks)
        self.conv2 = conv(inputs, _LAST, 1)
        self.bn2 = nn.BatchNorm2d(_LAST)
        self.act2 = nn.ReLU()
        self.flatten = PooledFlatten(pooled)
        self.linear = nn.Linear(_LAST * pooled**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.layers(self.act1(self.bn1(self.conv1(x))))
        x = self.act2(self.bn2(self.conv2(x)))
        logits: Tensor = self.linear(self.flatten(x))
        return logits


def mobilenet_v2(*, pooled: int = 1, classes: int = 10, channels: int = 3) -> nn.Module:
    """MobileNetV2 for small images; ``pooled`` is the side of the map that enters the head."""
    return MobileNetV2(classes, channels, pooled)
