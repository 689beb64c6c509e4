"""The residual networks of DeepMind's adversarial robustness work: SAME padding, often Swish.

Source: S. Gowal et al., "Uncovering the Limits of Adversarial Training against Norm-Bounded
Adversarial Examples", 2020; the keys are those of its PyTorch release and of RobustBench, with the
normalisation outside. Ported from JAX, a 3x3 convolution of stride 2 pads at the end only.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import PooledFlatten, SamePad, activation, conv
from robaudit.checkpoints.architectures.stages import stages
from robaudit.checkpoints.architectures.wide_resnet import blocks_of


def _same(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, bias=False)


class _WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.act_0 = activation(act)
        self.pad = SamePad(stride)
        self.conv_0 = _same(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.act_1 = activation(act)
        self.conv_1 = conv(outputs, outputs, 3)
        self.resized = inputs != outputs
        self.shortcut = conv(inputs, outputs, 1, stride) if self.resized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.act_0(self.batchnorm_0(x))
        inner = self.conv_0(self.pad(active))
        inner = self.conv_1(self.act_1(self.batchnorm_1(inner)))
        out: Tensor = inner + self.shortcut(active if self.resized else x)
        return out


class _PreActBlock(nn.Module):
    """Its shortcut is a 3x3 convolution of the block's input."""

    def __init__(self, inputs: int, outputs: int, stride: int, act: str) -> None:
        super().__init__()
        self.batchnorm_0 = nn.BatchNorm2d(inputs)
        self.act_0 = activation(act)
        self.pad = SamePad(stride)
        self.conv_2d_1 = _same(inputs, outputs, stride)
        self.batchnorm_1 = nn.BatchNorm2d(outputs)
        self.act_1 = activation(act)
        self.conv_2d_2 = conv(outputs, outputs, 3)
        self.resized = stride != 1 or inputs != outputs
        self.shortcut = _same(inputs, outputs, stride) if self.resized else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv_2d_1(self.pad(self.act_0(self.batchnorm_0(x))))
        inner = self.conv_2d_2(self.act_1(self.batchnorm_1(inner)))
        out: Tensor = inner + self.shortcut(self.pad(x) if self.resized else x)
        return out


class DMWideResNet(nn.Module):
    """Stem, three stages of blocks, batch norm, activation, pooling, linear head."""

    def __init__(self, count: int, classes: int, channels: int, width: int, act: str) -> None:
        super().__init__()
        self.init_conv = conv(channels, 16, 3)
        groups = []
        inputs = 16
        for stage in range(3):
            outputs = 16 * width << stage
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(_WideBlock(inputs, outputs, stride, act))
                inputs = outputs
            groups.append(nn.Sequential(OrderedDict([("block", nn.Sequential(*blocks))])))
        self.layer = nn.Sequential(*groups)
        self.batchnorm = nn.BatchNorm2d(inputs)
        self.act = activation(act)
        self.flatten = PooledFlatten()
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.act(self.batchnorm(self.layer(self.init_conv(x))))
        logits: Tensor = self.logits(self.flatten(x))
        return logits


class DMPreActResNet(nn.Module):
    """Stem, four stages of blocks, batch norm, activation, pooling, linear head."""

    def __init__(self, counts: list[int], classes: int, channels: int, act: str) -> None:
        super().__init__()
        self.conv_2d = conv(channels, 64, 3)
        inputs = 64
        self.stages = [f"layer_{stage}" for stage in range(len(counts))]
        for stage, count in enumerate(counts):
            outputs = 64 << stage
            blocks = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                blocks.append(_PreActBlock(inputs, outputs, stride, act))
                inputs = outputs
            self.add_module(self.stages[stage], nn.Sequential(*blocks))
        self.batchnorm = nn.BatchNorm2d(inputs)
        self.act = activation(act)
        self.flatten = PooledFlatten()
        self.logits = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.conv_2d(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.logits(self.flatten(self.act(self.batchnorm(x))))
        return logits


def dm_wide_resnet(
    depth: int = 28,
    width: int = 10,
    *,
    classes: int = 10,
    channels: int = 3,
    activation: str = "silu",
) -> nn.Module:
    """WRN-``depth``-``width``; Swish is ``silu``."""
    return DMWideResNet(blocks_of(depth), classes, channels, width, activation)


def dm_preact_resnet(
    depth: int = 18, *, classes: int = 10, channels: int = 3, activation: str = "silu"
) -> nn.Module:
    """A pre-activation residual network with basic blocks (depth 18 or 34)."""
    kind, counts = stages(depth, "")
    if kind != "basic":
        raise ValueError(f"depth {depth} has bottleneck blocks; there are only basic ones")
    return DMPreActResNet(counts, classes, channels, activation)
