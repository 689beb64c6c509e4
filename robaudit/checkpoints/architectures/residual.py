"""What the residual families are made of: blocks, stages, heads.

Sources: K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, and "Identity
Mappings in Deep Residual Networks", ECCV 2016 (pre-activation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.checkpoints.architectures.depths import EXPANSION
from robaudit.checkpoints.architectures.layers import PooledFlatten, conv, part_of

Activation = Callable[[], nn.Module]
NamedModule = tuple[str, nn.Module]


class PostActBlock(nn.Module):
    """Convolution, batch norm, activation, in turn; the last activation follows the sum.

    Args:
        shortcut: name and module of the path that the convolutions' output is added to.
        norm: whether there is batch norm behind each convolution.
    """

    def __init__(
        self, convs: Sequence[nn.Conv2d], act: Activation, shortcut: NamedModule, norm: bool = True
    ) -> None:
        super().__init__()
        self.names = [(f"conv{i}", f"bn{i}", f"act{i}") for i in range(1, len(convs) + 1)]
        for names, layer in zip(self.names, convs, strict=True):
            behind = nn.BatchNorm2d(layer.out_channels) if norm else nn.Identity()
            for name, made in zip(names, (layer, behind, act()), strict=True):
                self.add_module(name, made)
        self.shortcut_name = shortcut[0]
        self.add_module(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for conv_name, norm, act in self.names:
            inner = part_of(self, norm)(part_of(self, conv_name)(inner))
            if act == self.names[-1][2]:
                inner = inner + part_of(self, self.shortcut_name)(x)
            inner = part_of(self, act)(inner)
        return inner


class PreActBlock(nn.Module):
    """Batch norm, activation, convolution, in turn, and the sum with the shortcut.

    Args:
        shortcut: name and module of the path that the convolutions' output is added to.
        activated: the shortcut starts behind the first activation, not at the block's input.
        names: of norms and convolutions, with ``{0}`` for the index from 0 and ``{1}`` from 1.
        pad: applied before the first convolution; with ``pad_shortcut`` before the shortcut too.
    """

    def __init__(
        self,
        convs: Sequence[nn.Conv2d],
        act: Activation,
        shortcut: NamedModule,
        *,
        activated: bool,
        names: tuple[str, str] = ("bn{1}", "conv{1}"),
        pad: nn.Module | None = None,
        pad_shortcut: bool = False,
    ) -> None:
        super().__init__()
        self.names = []
        for i, layer in enumerate(convs):
            norm, name = (form.format(i, i + 1) for form in names)
            self.add_module(norm, nn.BatchNorm2d(layer.in_channels))
            self.add_module(f"act{i}", act())
            self.add_module(name, layer)
            self.names.append((norm, f"act{i}", name))
        self.pad = nn.Identity() if pad is None else pad
        self.pad_shortcut, self.activated = pad_shortcut, activated
        self.shortcut_name = shortcut[0]
        self.add_module(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        inner, start = x, self.pad(x) if self.pad_shortcut else x
        for i, (norm, act, layer) in enumerate(self.names):
            inner = part_of(self, act)(part_of(self, norm)(inner))
            if i == 0 and self.activated:
                start = inner
            inner = part_of(self, layer)(inner if i else self.pad(inner))
        out: Tensor = inner + part_of(self, self.shortcut_name)(start)
        return out


class PathBlock(nn.Module):
    """A post-activation block with the keys of mn-bab: ``path_b`` holds the convolutions,
    ``path_a`` the shortcut behind a layer that does nothing.
    """

    def __init__(
        self, convs: Sequence[nn.Conv2d], act: Activation, shortcut: nn.Module, norm: bool
    ) -> None:
        super().__init__()
        first, second = convs
        norms = [nn.BatchNorm2d(layer.out_channels) for layer in convs if norm]
        self.path_b = nn.Sequential(first, *norms[:1], act(), second, *norms[1:])
        self.path_a = nn.Sequential(nn.Identity(), *shortcut.children())
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.path_a(x) + self.path_b(x))
        return out


def verified_block(
    kind: str, sizes: tuple[int, int, int, int], flags: str, act: Activation
) -> nn.Module:
    """A block of the networks that verifiers are tried on (S. Wang et al., "Beta-CROWN", 2021).

    Args:
        kind: ``res``, or ``path`` for mn-bab's keys.
        sizes: inputs, outputs, kernel (of an even one only the first convolution pads), stride.
        flags: ``b`` for batch norm behind each convolution, ``n`` for convolutions without a bias,
            ``c`` for a 1x1 convolution on the shortcut, ``d`` where that is called ``downsample``.

    Raises:
        ValueError: the block changes the map's size and has no convolution on its shortcut.
    """
    inputs, outputs, kernel, stride = sizes
    bias, norm = "n" not in flags, "b" in flags
    pads = (1, 0) if kernel == 2 else (kernel // 2, kernel // 2)
    convs = [
        nn.Conv2d(inputs, outputs, kernel, stride, pads[0], bias=bias),
        nn.Conv2d(outputs, outputs, kernel, 1, pads[1], bias=bias),
    ]
    way: list[nn.Module] = []
    if "c" in flags:
        way = [nn.Conv2d(inputs, outputs, 1, stride, bias=bias)]
        way += [nn.BatchNorm2d(outputs)] if norm else []
    elif stride != 1 or inputs != outputs:
        raise ValueError("a block that changes the map needs a convolution on its shortcut")
    shortcut = nn.Sequential(*way)
    if kind == "path":
        return PathBlock(convs, act, shortcut, norm)
    return PostActBlock(convs, act, ("downsample" if "d" in flags else "shortcut", shortcut), norm)


class ZeroPaddedShortcut(nn.Module):
    """Every second pixel, with zeros for the new channels: no weights (option A of CVPR 2016)."""

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


class Unused(nn.Sequential):
    """Layers that are in a state dict and in no forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def convolutions(kind: str, inputs: int, width: int, stride: int) -> list[nn.Conv2d]:
    """``basic``: 3x3 (with the stride), 3x3. ``bottleneck``: 1x1, 3x3 (with the stride), 1x1."""
    if kind == "basic":
        return [conv(inputs, width, 3, stride), conv(width, width, 3)]
    outputs = EXPANSION[kind] * width
    return [conv(inputs, width, 1), conv(width, width, 3, stride), conv(width, outputs, 1)]


def stages(
    names: str,
    counts: Sequence[int],
    inputs: int,
    width: int,
    block: Callable[[int, int, int], nn.Module],
    expansion: int = 1,
) -> Iterator[tuple[str, nn.Sequential]]:
    """Blocks stage by stage; each stage but the first halves the map and doubles the width.

    Args:
        names: of the stages, with ``{0}`` for their index from 0 and ``{1}`` from 1.
        counts: blocks in each stage.
        inputs: channels that enter the first stage.
        width: of the blocks of the first stage; they give ``expansion`` times as many channels.
        block: makes one, of its inputs, width and stride.
    """
    for stage, count in enumerate(counts):
        blocks = []
        for i in range(count):
            blocks.append(block(inputs, width << stage, 2 if stage and not i else 1))
            inputs = expansion * (width << stage)
        yield names.format(stage, stage + 1), nn.Sequential(*blocks)


def head(
    name: str, features: int, pooled: int, classes: int, bias: bool = True
) -> list[NamedModule]:
    """Pooling to a map of side ``pooled``, and the linear layer ``name``."""
    linear = nn.Linear(features * pooled**2, classes, bias)
    return [("flatten", PooledFlatten(pooled)), (name, linear)]
