"""The residual families, by the keys of the code bases that most checkpoints come from.

Each network is for small images: a 3x3 stem, and the first stage at full resolution.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from robaudit.checkpoints.architectures.depths import EXPANSION, stages_of
from robaudit.checkpoints.architectures.layers import Network, activations, conv, one_of
from robaudit.checkpoints.architectures.residual import (
    Activation,
    NamedModule,
    PostActBlock,
    PreActBlock,
    SamePad,
    Unused,
    ZeroPaddedShortcut,
    convolutions,
    head,
    stages,
)


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
    """A residual network with the keys of kuangliu's pytorch-cifar (``shortcut``, ``linear``).

    TRADES, MadryLab's robustness and RobustBench have the same.

    Args:
        depth: names the blocks (:data:`~.depths.DEPTHS`); ``blocks`` names them itself.
        width: of the first stage, doubled in each that follows.
        stem: the stem's width, 0 for that of the first stage.
        shortcuts: ``conv``, or ``pad`` for zeros in place of weights (option A of the paper).
        pooled: side of the map that enters the head.
    """
    one_of(("conv", "pad"), shortcuts=shortcuts)
    sizes = (classes, channels, stem or width, width, pooled)
    names = ("shortcut", "linear")
    return _post_act(depth, blocks, names, sizes, activation, shortcuts, nn.Identity())


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
    """A residual network with torchvision's keys (``downsample``, ``fc``) and a 3x3 stem.

    Args:
        maxpool: ``none``, or ``3x3`` for torchvision's max pooling behind the stem; the others are
            those of :func:`resnet`.
    """
    one_of(("none", "3x3"), maxpool=maxpool)
    sizes = (classes, channels, stem or width, width, pooled)
    pool = nn.Identity() if maxpool == "none" else nn.MaxPool2d(3, 2, padding=1)
    return _post_act(depth, blocks, ("downsample", "fc"), sizes, activation, "conv", pool)


def _post_act(
    depth: int,
    blocks: str,
    names: tuple[str, str],
    sizes: tuple[int, int, int, int, int],
    activation: str,
    shortcuts: str,
    pool: nn.Module,
) -> nn.Module:
    kind, counts = stages_of(depth, blocks)
    classes, channels, stem, width, pooled = sizes
    act = activations(activation)

    def block(inputs: int, width: int, stride: int) -> nn.Module:
        way = _shortcut(inputs, EXPANSION[kind] * width, stride, shortcuts)
        return PostActBlock(convolutions(kind, inputs, width, stride), act, (names[0], way))

    parts: list[NamedModule] = [
        ("conv1", conv(channels, stem, 3)),
        ("bn1", nn.BatchNorm2d(stem)),
        ("act1", act()),
        ("pool", pool),
        *stages("layer{1}", counts, stem, width, block, EXPANSION[kind]),
    ]
    outputs = EXPANSION[kind] * (width << len(counts) - 1)
    return Network([*parts, *head(names[1], outputs, pooled, classes)])


def _shortcut(inputs: int, outputs: int, stride: int, kind: str = "conv") -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    if kind == "pad":
        return ZeroPaddedShortcut(inputs, outputs, stride)
    return nn.Sequential(conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


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
    """A pre-activation residual network with the keys of kuangliu's pytorch-cifar.

    With ``norm``, those of Rice et al. and the many after them, who add a batch norm ``bn`` before
    the head.

    Args:
        norm: ``batch`` for batch norm and activation before the pooling, or ``none``.
        shortcut: where the shortcuts that change size start: ``activated``, behind the first
            activation (kuangliu, Rice), or ``input`` (Wong et al., some of RobustBench's). No shape
            tells which. The other arguments are those of :func:`resnet`.
    """
    one_of(("activated", "input"), shortcut=shortcut)
    one_of(("batch", "none"), norm=norm)
    kind, counts = stages_of(depth, blocks)
    act = activations(activation)

    def block(inputs: int, width: int, stride: int) -> nn.Module:
        outputs = EXPANSION[kind] * width
        convs = convolutions(kind, inputs, width, stride)
        resized = stride != 1 or inputs != outputs
        way = nn.Sequential(conv(inputs, outputs, 1, stride)) if resized else nn.Identity()
        activated = resized and shortcut == "activated"
        return PreActBlock(convs, act, ("shortcut", way), activated=activated)

    stem = stem or width
    parts: list[NamedModule] = [
        ("conv1", conv(channels, stem, 3)),
        *stages("layer{1}", counts, stem, width, block, EXPANSION[kind]),
    ]
    outputs = EXPANSION[kind] * (width << len(counts) - 1)
    if norm == "batch":
        parts += [("bn", nn.BatchNorm2d(outputs)), ("act", act())]
    return Network([*parts, *head("linear", outputs, pooled, classes)])


def _blocks_of(depth: int) -> list[int]:
    """Blocks in each of the three stages of a wide residual network: ``(depth - 4) / 6``."""
    count, rest = divmod(depth - 4, 6)
    if rest or count < 1:
        raise ValueError(f"depth {depth} is not 4 more than a multiple of 6")
    return [count] * 3


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

    Its keys (``block1.layer.0.convShortcut``, ``fc``) are those of TRADES, AWP, MART, Rice et al.
    and RobustBench. Source: S. Zagoruyko and N. Komodakis, "Wide Residual Networks", BMVC 2016.

    Args:
        sub_block: 1 for an unused copy of the first stage, as in some of the older state dicts.
        bias: ``yes``, or ``no`` for a head without.
        pooled: side of the map that enters the head.
    """
    one_of(("yes", "no"), bias=bias)
    act = activations(activation)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        convs, resized = convolutions("basic", inputs, outputs, stride), inputs != outputs
        way = conv(inputs, outputs, 1, stride) if resized else nn.Identity()
        shortcut = ("convShortcut", way)
        return PreActBlock(convs, act, shortcut, activated=resized)

    parts: list[NamedModule] = [("conv1", conv(channels, stem, 3))]
    for name, stage in stages("block{1}", _blocks_of(depth), stem, 16 * width, block):
        parts.append((name, nn.Sequential(OrderedDict(layer=stage))))
        if name == "block1" and sub_block:
            copy = next(stages("", _blocks_of(depth), stem, 16 * width, block))[1]
            parts.append(("sub_block1", Unused(OrderedDict(layer=copy))))
    parts += [("bn1", nn.BatchNorm2d(64 * width)), ("act1", act())]
    return Network([*parts, *head("fc", 64 * width, pooled, classes, bias == "yes")])


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
    """WRN-``depth``-``width`` with the keys of meliketoy's wide-resnet.pytorch.

    These are ``layer1.0.shortcut.0`` and ``linear``; shortcuts start from the block's input.

    Args:
        bias: which convolutions have one: ``all``, ``stem``, ``blocks`` or ``none``.
        stride: which convolution of a block has the stride: ``first`` or ``second``. The other
            arguments are those of :func:`wide_resnet`.
    """
    one_of(("all", "stem", "blocks", "none"), bias=bias)
    one_of(("first", "second"), stride=stride)
    biased, act = bias in ("all", "blocks"), activations(activation)

    def block(inputs: int, outputs: int, step: int) -> nn.Module:
        steps = (1, step) if stride == "second" else (step, 1)
        convs = [
            conv(inputs, outputs, 3, steps[0], biased),
            conv(outputs, outputs, 3, steps[1], biased),
        ]
        resized = step != 1 or inputs != outputs
        way = conv(inputs, outputs, 1, step, biased) if resized else nn.Identity()
        shortcut = ("shortcut", nn.Sequential(way))
        return PreActBlock(convs, act, shortcut, activated=False)

    parts: list[NamedModule] = [
        ("conv1", conv(channels, stem, 3, bias=bias in ("all", "stem"))),
        *stages("layer{1}", _blocks_of(depth), stem, 16 * width, block),
        ("bn1", nn.BatchNorm2d(64 * width)),
        ("act1", act()),
    ]
    return Network([*parts, *head("linear", 64 * width, pooled, classes)])


def dm_wide_resnet(
    depth: int = 28,
    width: int = 10,
    *,
    classes: int = 10,
    channels: int = 3,
    activation: str = "silu",
) -> nn.Module:
    """DeepMind's WRN-``depth``-``width``: SAME padding, often Swish (``silu``).

    Source: S. Gowal et al., "Uncovering the Limits of Adversarial Training against Norm-Bounded
    Adversarial Examples", 2020; the keys are those of its PyTorch release and of RobustBench, with
    the normalisation outside. Ported from JAX, a 3x3 convolution of stride 2 pads at the end only.
    """
    act = activations(activation)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        resized = inputs != outputs
        convs = [_same(inputs, outputs, stride), conv(outputs, outputs, 3)]
        way = conv(inputs, outputs, 1, stride) if resized else nn.Identity()
        return PreActBlock(
            convs,
            act,
            ("shortcut", way),
            activated=resized,
            names=("batchnorm_{0}", "conv_{0}"),
            pad=SamePad(stride),
        )

    stem = ("init_conv", conv(channels, 16, 3))
    groups = [
        nn.Sequential(OrderedDict(block=stage))
        for _, stage in stages("", _blocks_of(depth), 16, 16 * width, block)
    ]
    layer = ("layer", nn.Sequential(*groups))
    return Network([stem, layer, *_dm_end(64 * width, classes, act)])


def dm_preact_resnet(
    depth: int = 18, *, classes: int = 10, channels: int = 3, activation: str = "silu"
) -> nn.Module:
    """DeepMind's pre-activation network with basic blocks (depth 18 or 34).

    As :func:`dm_wide_resnet`; shortcuts are 3x3 convolutions of the block's input.
    """
    kind, counts = stages_of(depth, "")
    if kind != "basic":
        raise ValueError(f"depth {depth} has bottleneck blocks; there are only basic ones")
    act = activations(activation)

    def block(inputs: int, outputs: int, stride: int) -> nn.Module:
        resized = stride != 1 or inputs != outputs
        convs = [_same(inputs, outputs, stride), conv(outputs, outputs, 3)]
        return PreActBlock(
            convs,
            act,
            ("shortcut", _same(inputs, outputs, stride) if resized else nn.Identity()),
            activated=False,
            names=("batchnorm_{0}", "conv_2d_{1}"),
            pad=SamePad(stride),
            pad_shortcut=resized,
        )

    stem = ("conv_2d", conv(channels, 64, 3))
    parts = [stem, *stages("layer_{0}", counts, 64, 64, block)]
    return Network([*parts, *_dm_end(64 << len(counts) - 1, classes, act)])


def _same(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, bias=False)


def _dm_end(features: int, classes: int, act: Activation) -> list[NamedModule]:
    norm = nn.BatchNorm2d(features)
    return [("batchnorm", norm), ("act", act()), *head("logits", features, 1, classes)]


def digits_resnet(classes: int = 10, channels: int = 1, width: int = 24) -> nn.Module:
    """A residual network for 8x8 images, of about ``75 * width**2`` parameters.

    One basic block at full and one at half resolution. Every operation is one whose layer traces
    have an exact formula (piecewise linear in each layer's weights once batch norm is in evaluation
    mode), so it is the family that most samples and tests use. It takes images
    ``(n, channels, h, w)`` in ``[0, 1]`` of any size from 2x2 and needs no input normalisation.

    >>> sum(p.numel() for p in digits_resnet().parameters())
    43762
    """
    parts: list[NamedModule] = [
        ("conv", conv(channels, width, 3)),
        ("bn", nn.BatchNorm2d(width)),
        ("relu", nn.ReLU()),
    ]
    for name, outputs, stride in (("block1", width, 1), ("block2", 2 * width, 2)):
        convs = convolutions("basic", width, outputs, stride)
        shortcut = ("shortcut", _shortcut(width, outputs, stride))
        parts.append((name, PostActBlock(convs, nn.ReLU, shortcut)))
    return Network([*parts, *head("head", 2 * width, 1, classes)])
