"""Pre-activation residual networks in their CIFAR form: batch norm and activation come first.

Source: K. He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016. The keys are those
of kuangliu's pytorch-cifar, and with ``norm`` those of Rice et al. and the many after them, who add
a batch norm ``bn`` before the head. Where a block changes size, its shortcut starts behind the
first activation (kuangliu, Rice) or from the block's input (Wong et al., some of RobustBench's):
no shape tells which.
"""

from __future__ import annotations

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import PooledFlatten, activation, conv, one_of
from robaudit.checkpoints.architectures.stages import EXPANSION, stages


class _Block(nn.Module):
    """Batch norm, activation, convolution, two or three times, and the sum with the input."""

    def __init__(
        self, kind: str, inputs: int, width: int, stride: int, act: str, activated: bool
    ) -> None:
        super().__init__()
        outputs = EXPANSION[kind] * width
        if kind == "basic":
            convs = [conv(inputs, width, 3, stride), conv(width, width, 3)]
        else:
            convs = [conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1)]
        for i, layer in enumerate(convs, 1):
            self.add_module(f"bn{i}", nn.BatchNorm2d(layer.in_channels))
            self.add_module(f"act{i}", activation(act))
            self.add_module(f"conv{i}", layer)
        self.count = len(convs)
        resized = stride != 1 or inputs != outputs
        self.activated = activated and resized
        self.shortcut = (
            nn.Sequential(conv(inputs, outputs, 1, stride)) if resized else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        inner, start = x, x
        for i in range(1, self.count + 1):
            inner = self.get_submodule(f"act{i}")(self.get_submodule(f"bn{i}")(inner))
            if i == 1 and self.activated:
                start = inner
            inner = self.get_submodule(f"conv{i}")(inner)
        out: Tensor = inner + self.shortcut(start)
        return out


class PreActResNet(nn.Module):
    """Stem, stages of blocks, with ``norm`` batch norm and activation, pooling, linear head."""

    def __init__(
        self,
        blocks: tuple[str, list[int]],
        sizes: tuple[int, int, int, int],
        act: str,
        activated: bool,
        norm: bool,
        pooled: int,
    ) -> None:
        super().__init__()
        kind, counts = blocks
        classes, channels, stem, width = sizes
        self.conv1 = conv(channels, stem, 3)
        inputs = stem
        self.stages = [f"layer{stage + 1}" for stage in range(len(counts))]
        for stage, count in enumerate(counts):
            layers = []
            for i in range(count):
                stride = 2 if stage and not i else 1
                layers.append(_Block(kind, inputs, width << stage, stride, act, activated))
                inputs = EXPANSION[kind] * (width << stage)
            self.add_module(self.stages[stage], nn.Sequential(*layers))
        self.bn = nn.BatchNorm2d(inputs) if norm else nn.Identity()
        self.act = activation(act) if norm else nn.Identity()
        self.flatten = PooledFlatten(pooled)
        self.linear = nn.Linear(inputs * pooled**2, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        x = self.conv1(x)
        for stage in self.stages:
            x = self.get_submodule(stage)(x)
        logits: Tensor = self.linear(self.flatten(self.act(self.bn(x))))
        return logits


def preact_resnet(
    depth: int = 18,
    *,
    blocks: str = "",
    width: int = 64,
    stem: int = 0,
    norm: str = "batch",
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
    shortcut: str = "activated",
    activation: str = "relu",
) -> nn.Module:
    """A pre-activation residual network.

    Args:
        depth: names the blocks (:data:`~.stages.DEPTHS`); ``blocks`` names them itself.
        width: of the first stage, doubled in each that follows; ``stem`` is the stem's, 0 for the
            same.
        norm: ``batch`` for batch norm and activation before the pooling, or ``none``.
        pooled: side of the map that enters the head.
        shortcut: ``activated`` or ``input``, where the shortcuts that change size start.
    """
    one_of(("activated", "input"), shortcut=shortcut)
    one_of(("batch", "none"), norm=norm)
    return PreActResNet(
        stages(depth, blocks),
        (classes, channels, stem or width, width),
        activation,
        shortcut == "activated",
        norm == "batch",
        pooled,
    )
