"""The families without residual stages, or with one plan for all: VGG, MobileNetV2, SmallCNN."""

from __future__ import annotations

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.depths import named_plan
from robaudit.checkpoints.architectures.signatures.reading import (
    indexed,
    of_rank,
    positive,
    side,
)

_IMAGENET = 1000
_MAX_CONVS = 64
_MOBILE_WIDTHS = {100: 32, 50: 16, 75: 24, 140: 48, 25: 8, 35: 16, 130: 40}
"""Channels behind the stem by width in percent: rounded to multiples of eight."""


def vgg(shapes: Shapes) -> list[Arguments]:
    """A layer without weights takes an index too: a gap in them is a max pooling."""
    convs = [(i, s) for i, s in indexed(shapes, "features.", ".weight") if len(s) == 4]
    if not 0 < len(convs) <= _MAX_CONVS or any(
        shape[2:] != (3, 3) or not shape[0] for _, shape in convs
    ):
        return []
    norm = f"features.{convs[0][0] + 1}.running_mean" in shapes
    plan = []
    for (index, shape), (following, _) in zip(convs, [*convs[1:], (-1, ())], strict=True):
        plan.append(str(shape[0]))
        if following == index + 3 + norm:
            plan.append("M")
        elif following not in (index + 2 + norm, -1):
            return []
    heads = indexed(shapes, "classifier.", ".weight")
    first = heads[0][1] if heads else shapes.get("classifier.weight", ())
    last = heads[-1][1] if heads else first
    if len(first) != 2 or len(last) != 2 or not last[0]:
        return []
    widths = [f"{i}:{shape[0]}" for i, shape in heads[:-1]] + [f"{i}" for i, _ in heads[-1:]]
    pooled = side(first[1], convs[-1][1][0])
    if heads and (pooled, first[0]) == (7, 4096):  # torchvision's
        return []
    arguments: dict[str, int | str] = {
        **({} if norm else {"norm": "none"}),
        **({"head": "-".join(widths)} if heads else {}),
        "pooled": pooled,
        "classes": last[0],
        "channels": convs[0][1][1],
    }
    if not pooled:
        return []
    # The last map may be pooled or not; if it enters the head whole, more often not.
    endings = [["M"], []] if pooled == 1 else [[], ["M"]]
    plans = ["-".join([*plan, *ending]) for ending in endings]
    if pooled == 1:
        plans = plans[:1]
    return [positive({**named_plan(text), **arguments})[0] for text in plans]


def mobilenet_v2(shapes: Shapes) -> list[Arguments]:
    stem, last = of_rank(shapes, "conv1.weight", 4), of_rank(shapes, "linear.weight", 2)
    if stem is None or last is None or "layers.16.conv3.weight" not in shapes:
        return []
    pooled = side(last[1], 1280)
    return positive({"pooled": pooled, "classes": last[0], "channels": stem[1]})


def cifar_mobilenet_v2(shapes: Shapes) -> list[Arguments]:
    stem = of_rank(shapes, "features.0.0.weight", 4)
    last = of_rank(shapes, "classifier.1.weight", 2)
    block = of_rank(shapes, "features.2.conv.0.0.weight", 4)
    if stem is None or last is None or block is None or last[0] >= _IMAGENET:
        return []
    widths = [w for w, stem_width in _MOBILE_WIDTHS.items() if stem_width == stem[0]]
    return [{"width": w, "classes": last[0], "channels": stem[1]} for w in widths]


def small_cnn(shapes: Shapes) -> list[Arguments]:
    stem = of_rank(shapes, "feature_extractor.conv1.weight", 4)
    first = of_rank(shapes, "classifier.fc1.weight", 2)
    last = of_rank(shapes, "classifier.fc3.weight", 2)
    if stem is None or first is None or last is None:
        return []
    arguments = {
        "width": stem[0],
        "hidden": first[0],
        "side": side(first[1], 2 * stem[0]),
        "classes": last[0],
        "channels": stem[1],
    }
    return positive(arguments)
