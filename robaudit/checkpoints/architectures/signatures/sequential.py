"""Plain networks, with layers at the indices of a ``Sequential`` or under names of their own.

Their keys do not say which activation, pooling, stride and padding were trained: every combination
that the shapes allow is a guess, the usual ones first.
"""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.checkpoints.architectures.architecture import Arguments, Image, Shapes
from robaudit.checkpoints.architectures.signatures.chains import Layer, chain, rooms
from robaudit.checkpoints.architectures.signatures.solving import ACT, solutions

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


def _counted(layers: Sequence[Layer]) -> bool:
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
