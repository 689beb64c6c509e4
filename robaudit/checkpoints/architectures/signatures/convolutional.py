"""VGG, MobileNetV2, SmallCNN, and plain chains of layers.

The keys of a chain do not say which activation, pooling, stride and padding were trained: every
combination that the shapes allow is a guess, the usual ones first.
"""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.checkpoints.architectures.architecture import Arguments, Image, Shapes
from robaudit.checkpoints.architectures.depths import named_plan
from robaudit.checkpoints.architectures.signatures.chains import ChainLayer, chain, rooms
from robaudit.checkpoints.architectures.signatures.reading import (
    indexed,
    positive,
    read,
    side,
)
from robaudit.checkpoints.architectures.signatures.solving import ACT, solutions

_IMAGENET = 1000
_MAX_CONVS = 64
_MOBILE_WIDTHS = {100: 32, 50: 16, 75: 24, 140: 48, 25: 8, 35: 16, 130: 40}
"""Channels behind the stem by width in percent: rounded to multiples of eight."""

ACTIVATIONS = (
    "relu",
    "leaky",
    "sigmoid",
    "tanh",
    "elu",
    "gelu",
    "silu",
    "softplus",
    "leaky0.1",
    "leaky0.2",
)
"""Names of activations, the usual ones first."""


def vgg(shapes: Shapes) -> list[Arguments]:
    """Layers without weights have indices too: a gap between convolutions is a max pooling."""
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
    found = read(
        shapes,
        pooled=("linear.weight", 2, 1),
        classes=("linear.weight", 2, 0),
        channels=("conv1.weight", 4, 1),
    )
    if not found or "layers.16.conv3.weight" not in shapes:
        return []
    return positive({**found, "pooled": side(found["pooled"], 1280)})


def cifar_mobilenet_v2(shapes: Shapes) -> list[Arguments]:
    found = read(
        shapes,
        width=("features.0.0.weight", 4, 0),
        block=("features.2.conv.0.0.weight", 4, 0),
        classes=("classifier.1.weight", 2, 0),
        channels=("features.0.0.weight", 4, 1),
    )
    if not found or found.pop("block") < 1 or found["classes"] >= _IMAGENET:
        return []
    widths = [w for w, stem_width in _MOBILE_WIDTHS.items() if stem_width == found["width"]]
    return [{**found, "width": width} for width in widths]


def small_cnn(shapes: Shapes) -> list[Arguments]:
    found = read(
        shapes,
        width=("feature_extractor.conv1.weight", 4, 0),
        hidden=("classifier.fc1.weight", 2, 0),
        side=("classifier.fc1.weight", 2, 1),
        classes=("classifier.fc3.weight", 2, 0),
        channels=("feature_extractor.conv1.weight", 4, 1),
    )
    if not found:
        return []
    return positive({**found, "side": side(found["side"], 2 * found["width"])})


def sequential_cnn(shapes: Shapes, image: Image | None = None) -> list[Arguments]:
    """A few solutions for the image or each usual size of one, with each activation."""
    layers = chain(shapes)
    if not layers or not _counted(layers):
        return []
    return [{"layers": text} for text in _activated(solutions(layers, rooms(layers), image))]


def plain_cnn(shapes: Shapes, image: Image | None = None) -> list[Arguments]:
    """The same for a chain under other names, and for a list of layers."""
    layers = chain(shapes)
    if not layers or _counted(layers):
        return []
    names = "-".join(layer.name for layer in layers)
    if not names.replace("-", "").replace(".", "").replace("_", "").isalnum():
        return []
    return [
        {"layers": text, "names": names}
        for text in _activated(solutions(layers, rooms(layers), image))
    ]


def unactivated(arguments: Arguments) -> Arguments:
    """The same network with the first of the activations.

    >>> unactivated({"layers": "conv1x4k3s1p0-tanh-linear144x10"})
    {'layers': 'conv1x4k3s1p0-relu-linear144x10'}
    """
    tokens = str(arguments.get("layers", "")).split("-")
    plain = "-".join(ACT if token in ACTIVATIONS else token for token in tokens)
    return {**arguments, "layers": plain}


def _counted(layers: Sequence[ChainLayer]) -> bool:
    """Whether they are those of one ``Sequential``, with activations between them."""
    return rooms(layers)[0] is not None and all(layer.name.isdecimal() for layer in layers)


def _activated(texts: Sequence[str]) -> list[str]:
    """Each with every activation; without one, it is itself."""
    split = [text.split("-") for text in texts]
    varied = [
        "-".join(activation if token == ACT else token for token in tokens)
        for activation in ACTIVATIONS
        for tokens in split
    ]
    return list(dict.fromkeys(varied))
