"""A small residual network for 8x8 images: batch norm, ReLU, residual sums.

Every operation is one whose layer traces have an exact formula (piecewise linear in each layer's
weights once batch norm is in eval mode), so it is the family most samples and tests use.
Source: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016 (basic block).
"""

from __future__ import annotations

from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        out: Tensor = self.relu2(inner + self.shortcut(x))
        return out


class DigitsResNet(nn.Module):
    """Stem, one block at full and one at half resolution, average pooling, linear head."""

    def __init__(self, classes: int, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.block1 = _Block(width, width, stride=1)
        self.block2 = _Block(width, 2 * width, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)`` in ``[0, 1]``."""
        x = self.relu(self.bn(self.conv(x)))
        x = self.block2(self.block1(x))
        logits: Tensor = self.head(self.flatten(self.pool(x)))
        return logits


def digits_resnet(classes: int = 10, channels: int = 1, width: int = 24) -> nn.Module:
    """A residual network of about ``75 * width**2`` parameters (44 000 at width 24).

    Takes images ``(n, channels, h, w)`` in ``[0, 1]`` of any size from 2x2 and needs no input
    normalisation; gives logits ``(n, classes)``.

    >>> sum(p.numel() for p in digits_resnet().parameters())
    43762
    """
    return DigitsResNet(classes, channels, width)
