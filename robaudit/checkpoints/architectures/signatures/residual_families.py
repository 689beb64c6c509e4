"""The residual families: blocks counted stage by stage, widths read off the first of them."""

from __future__ import annotations

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.depths import EXPANSION, named_depth
from robaudit.checkpoints.architectures.signatures.reading import (
    numbered,
    of_rank,
    positive,
    side,
)

_EITHER = ("relu", "silu")
_MAX_STAGES = 6


def resnet(shapes: Shapes) -> list[Arguments]:
    read = _stages(shapes, "linear.weight") if "bn1.weight" in shapes else None
    # With a biased stem it is a wide ResNet of numbered layers.
    if read is None or "layer1.0.bn1.weight" not in shapes or "conv1.bias" in shapes:
        return []
    weighty = any(".shortcut." in key for key in shapes)
    arguments = {**read, **({} if weighty else {"shortcuts": "pad"})}
    return positive(arguments, activation=_EITHER)


def cifar_resnet(shapes: Shapes) -> list[Arguments]:
    read = _stages(shapes, "fc.weight")
    stem = shapes.get("conv1.weight", ())
    if read is None or stem[-1:] != (3,):
        return []
    return positive(read, maxpool=("none", "3x3"), activation=("relu",))


def preact_resnet(shapes: Shapes) -> list[Arguments]:
    read = _stages(shapes, "linear.weight")
    if read is None or "bn1.weight" in shapes:
        return []
    norm = {} if "bn.weight" in shapes else {"norm": "none"}
    return positive({**read, **norm}, activation=_EITHER, shortcut=("activated", "input"))


def _stages(shapes: Shapes, head: str) -> dict[str, int | str] | None:
    """What all of them have in common."""
    stem, block = of_rank(shapes, "conv1.weight", 4), of_rank(shapes, "layer1.0.conv1.weight", 4)
    last = of_rank(shapes, head, 2)
    if stem is None or block is None or last is None:
        return None
    kind = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    counts: list[int] = []
    while count := numbered(shapes, f"layer{len(counts) + 1}.", ".conv1.weight"):
        counts.append(count)
    if not 0 < len(counts) <= _MAX_STAGES:
        return None
    width = block[0]
    outputs = EXPANSION[kind] * (width << (len(counts) - 1))
    pooled = side(last[1], outputs)
    if not pooled:
        return None
    return {
        **named_depth("-".join([kind, *map(str, counts)])),
        "width": width,
        **({"stem": stem[0]} if stem[0] != width else {}),
        **({"pooled": pooled} if pooled > 1 else {}),
        "classes": last[0],
        "channels": stem[1],
    }


def wide_resnet(shapes: Shapes) -> list[Arguments]:
    read = _wide(shapes, "block1.layer.", "fc.weight")
    if read is None:
        return []
    sub_block = {"sub_block": 1} if "sub_block1.layer.0.bn1.weight" in shapes else {}
    bias = {} if "fc.bias" in shapes else {"bias": "no"}
    return positive({**read, **sub_block, **bias}, activation=_EITHER)


def wide_resnet_layers(shapes: Shapes) -> list[Arguments]:
    read = _wide(shapes, "layer1.", "linear.weight")
    if read is None or "bn1.weight" not in shapes:
        return []
    stem, blocks = "conv1.bias" in shapes, "layer1.0.conv1.bias" in shapes
    bias = {(1, 1): "all", (1, 0): "stem", (0, 1): "blocks", (0, 0): "none"}[stem, blocks]
    order = ("second", "first") if blocks else ("first", "second")
    return positive({**read, "bias": bias}, stride=order, activation=("relu",))


def _wide(shapes: Shapes, stage: str, head: str) -> dict[str, int | str] | None:
    stem = of_rank(shapes, "conv1.weight", 4)
    block = of_rank(shapes, f"{stage}0.conv1.weight", 4)
    last = of_rank(shapes, head, 2)
    if stem is None or block is None or last is None or block[0] % 16:
        return None
    pooled = side(last[1], 4 * block[0])
    if not pooled:
        return None
    return {
        "depth": 4 + 6 * numbered(shapes, stage, ".conv1.weight"),
        "width": block[0] // 16,
        **({"stem": stem[0]} if stem[0] != 16 else {}),
        **({"pooled": pooled} if pooled > 1 else {}),
        "classes": last[0],
        "channels": stem[1],
    }


def dm_wide_resnet(shapes: Shapes) -> list[Arguments]:
    stem = of_rank(shapes, "init_conv.weight", 4)
    block = of_rank(shapes, "layer.0.block.0.conv_0.weight", 4)
    last = of_rank(shapes, "logits.weight", 2)
    if stem is None or block is None or last is None:
        return []
    arguments = {
        "depth": 4 + 6 * numbered(shapes, "layer.0.block.", ".conv_0.weight"),
        "width": block[0] // 16,
        "classes": last[0],
        "channels": stem[1],
    }
    return positive(arguments, activation=("silu", "relu"))


def dm_preact_resnet(shapes: Shapes) -> list[Arguments]:
    stem, last = of_rank(shapes, "conv_2d.weight", 4), of_rank(shapes, "logits.weight", 2)
    if stem is None or last is None:
        return []
    counts = [numbered(shapes, f"layer_{stage}.", ".conv_2d_1.weight") for stage in range(4)]
    depth = named_depth("-".join(["basic", *map(str, counts)])).get("depth")
    if depth is None:
        return []
    arguments = {"depth": depth, "classes": last[0], "channels": stem[1]}
    return positive(arguments, activation=("silu", "relu"))


def digits_resnet(shapes: Shapes) -> list[Arguments]:
    stem, head = shapes.get("conv.weight", ()), shapes.get("head.weight", ())
    if len(stem) != 4 or len(head) != 2:
        return []
    return positive({"classes": head[0], "channels": stem[1], "width": stem[0]})
