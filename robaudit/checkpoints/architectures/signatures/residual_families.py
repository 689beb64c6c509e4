"""The residual families: blocks counted stage by stage, widths read from the first of them."""

from __future__ import annotations

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.depths import EXPANSION, named_depth
from robaudit.checkpoints.architectures.signatures.reading import (
    numbered,
    positive,
    read,
    side,
)

_EITHER = ("relu", "silu")
_MAX_STAGES = 6


def resnet(shapes: Shapes) -> list[Arguments]:
    found = _stages(shapes, "linear.weight") if "bn1.weight" in shapes else {}
    # With a biased stem it is a wide ResNet of numbered layers.
    if not found or "layer1.0.bn1.weight" not in shapes or "conv1.bias" in shapes:
        return []
    shortcuts = {} if any(".shortcut." in key for key in shapes) else {"shortcuts": "pad"}
    return positive({**found, **shortcuts}, activation=_EITHER)


def cifar_resnet(shapes: Shapes) -> list[Arguments]:
    found = _stages(shapes, "fc.weight")
    if not found or shapes["conv1.weight"][-1] != 3:
        return []
    return positive(found, maxpool=("none", "3x3"), activation=("relu",))


def preact_resnet(shapes: Shapes) -> list[Arguments]:
    found = _stages(shapes, "linear.weight")
    if not found or "bn1.weight" in shapes:
        return []
    norm = {} if "bn.weight" in shapes else {"norm": "none"}
    return positive({**found, **norm}, activation=_EITHER, shortcut=("activated", "input"))


def _stages(shapes: Shapes, head: str) -> dict[str, int | str]:
    """What the networks with stages ``layer1``, ``layer2``, ... have in common."""
    found = _common(shapes, "layer1.0.conv1.weight", head)
    kind = "bottleneck" if "layer1.0.conv3.weight" in shapes else "basic"
    counts: list[int] = []
    while count := numbered(shapes, f"layer{len(counts) + 1}.", ".conv1.weight"):
        counts.append(count)
    if not found or not 0 < len(counts) <= _MAX_STAGES:
        return {}
    outputs = EXPANSION[kind] * (found["width"] << (len(counts) - 1))
    blocks = named_depth("-".join([kind, *map(str, counts)]))
    return _trimmed({**blocks, **found}, found["width"], outputs)


def wide_resnet(shapes: Shapes) -> list[Arguments]:
    found = _wide(shapes, "block1.layer.", "fc.weight")
    if not found:
        return []
    sub_block = {"sub_block": 1} if "sub_block1.layer.0.bn1.weight" in shapes else {}
    bias = {} if "fc.bias" in shapes else {"bias": "no"}
    return positive({**found, **sub_block, **bias}, activation=_EITHER)


def wide_resnet_layers(shapes: Shapes) -> list[Arguments]:
    found = _wide(shapes, "layer1.", "linear.weight")
    if not found or "bn1.weight" not in shapes:
        return []
    stem, blocks = "conv1.bias" in shapes, "layer1.0.conv1.bias" in shapes
    bias = {(1, 1): "all", (1, 0): "stem", (0, 1): "blocks", (0, 0): "none"}[stem, blocks]
    order = ("second", "first") if blocks else ("first", "second")
    return positive({**found, "bias": bias}, stride=order, activation=("relu",))


def _wide(shapes: Shapes, stage: str, head: str) -> dict[str, int | str]:
    found = _common(shapes, f"{stage}0.conv1.weight", head)
    if not found or found["width"] % 16:
        return {}
    depth = 4 + 6 * numbered(shapes, stage, ".conv1.weight")
    width = found["width"]
    return _trimmed({"depth": depth, **found, "width": width // 16}, 16, 4 * width)


def _common(shapes: Shapes, first: str, head: str) -> dict[str, int]:
    """Sizes of the stem ``conv1``, the first block's first convolution, and the head."""
    return read(
        shapes,
        width=(first, 4, 0),
        stem=("conv1.weight", 4, 0),
        pooled=(head, 2, 1),
        classes=(head, 2, 0),
        channels=("conv1.weight", 4, 1),
    )


def _trimmed(found: dict[str, int | str], stem: int, outputs: int) -> dict[str, int | str]:
    """Without a usual stem, and with the side of the pooled map, if that is not 1.

    Args:
        found: ``pooled`` is the number of features that enter the head.
        stem: the usual width of the stem.
        outputs: channels of the last map.
    """
    pooled = side(int(found["pooled"]), outputs)
    usual = {"stem": stem, "pooled": 1}
    kept = {**found, "pooled": pooled}
    return {k: v for k, v in kept.items() if usual.get(k) != v} if pooled else {}


def dm_wide_resnet(shapes: Shapes) -> list[Arguments]:
    block = "layer.0.block."
    found = read(
        shapes,
        width=(f"{block}0.conv_0.weight", 4, 0),
        classes=("logits.weight", 2, 0),
        channels=("init_conv.weight", 4, 1),
    )
    if not found:
        return []
    depth = 4 + 6 * numbered(shapes, block, ".conv_0.weight")
    width = found["width"] // 16
    return positive({"depth": depth, **found, "width": width}, activation=("silu", "relu"))


def dm_preact_resnet(shapes: Shapes) -> list[Arguments]:
    found = read(shapes, classes=("logits.weight", 2, 0), channels=("conv_2d.weight", 4, 1))
    counts = [numbered(shapes, f"layer_{stage}.", ".conv_2d_1.weight") for stage in range(4)]
    depth = named_depth("-".join(["basic", *map(str, counts)])).get("depth")
    if not found or depth is None:
        return []
    return positive({"depth": depth, **found}, activation=("silu", "relu"))


def digits_resnet(shapes: Shapes) -> list[Arguments]:
    return positive(
        read(
            shapes,
            classes=("head.weight", 2, 0),
            channels=("conv.weight", 4, 1),
            width=("conv.weight", 4, 0),
        )
    )
