"""The layers of a plain network as text, one token each.

``conv3x16k4s2p1`` (inputs, outputs, kernel, stride, padding; ``n`` behind it for no bias),
``norm16``, ``linear2048x100``; an activation (``relu``, ``leaky``, ``leaky0.2``, ``sigmoid``,
``tanh``, ``elu``, ``gelu``, ``silu``, ``softplus``); ``maxpool`` and ``avgpool`` (2x2),
``maxpool3s2p1`` and ``avgpool3s2p1`` (kernel, stride, padding), ``globalpool`` (the average),
``globalmax``, ``meanto4`` (the average over a grid, to a 4x4 map); ``flatten``, ``pad12`` (one zero
before and two behind each row and column) and ``skip``, which does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from robaudit.checkpoints.architectures.residual import verified_block

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
    "leaky0.1": lambda: nn.LeakyReLU(0.1),
    "leaky0.2": lambda: nn.LeakyReLU(0.2),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}
_PLAIN: dict[str, Callable[[], nn.Module]] = {
    **ACTIVATIONS,
    "flatten": nn.Flatten,
    "skip": nn.Identity,
    "maxpool": lambda: nn.MaxPool2d(2),
    "avgpool": lambda: nn.AvgPool2d(2),
    "globalpool": lambda: nn.AdaptiveAvgPool2d(1),
    "globalmax": lambda: nn.AdaptiveMaxPool2d(1),
    "pad12": lambda: nn.ZeroPad2d((1, 2, 1, 2)),
}
_CONV = re.compile(r"conv(\d+)x(\d+)k(\d+)s(\d+)p(\d+)(n?)")
_LINEAR = re.compile(r"linear(\d+)x(\d+)(n?)")
_NORM = re.compile(r"norm(\d+)")
_POOL = re.compile(r"(max|avg)pool(\d+)s(\d+)p(\d+)")
_MEAN = re.compile(r"meanto(\d+)")
_BLOCK = re.compile(r"(res|path)(\d+)x(\d+)k(\d+)s(\d+)([bncd]*)")


def layers_of(text: str) -> list[nn.Module]:
    """The layers of a text of tokens joined by ``-``.

    Batch norm behind a linear layer is that of vectors; a residual block has the activation of the
    layers around it.

    Raises:
        ValueError: there is no such layer.

    >>> layers_of("conv1x4k3s1p0-sigmoid")
    [Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1)), Sigmoid()]
    """
    tokens = text.split("-")
    activation = next((token for token in tokens if token in ACTIVATIONS), "relu")
    made: list[nn.Module] = []
    flat = False
    for token in tokens:
        flat = flat or token.startswith("linear")
        made.append(_layer(token, ACTIVATIONS[activation], flat))
    return made


def _layer(text: str, activation: Callable[[], nn.Module], flat: bool) -> nn.Module:
    if text in _PLAIN:
        return _PLAIN[text]()
    if found := _CONV.fullmatch(text):
        inputs, outputs, kernel, stride, padding = map(int, found.groups()[:5])
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not found[6])
    if found := _LINEAR.fullmatch(text):
        return nn.Linear(int(found[1]), int(found[2]), bias=not found[3])
    if found := _NORM.fullmatch(text):
        return (nn.BatchNorm1d if flat else nn.BatchNorm2d)(int(found[1]))
    if found := _POOL.fullmatch(text):
        kind = nn.MaxPool2d if found[1] == "max" else nn.AvgPool2d
        kernel, stride, padding = map(int, found.groups()[1:])
        return kind(kernel, stride, padding)
    if found := _MEAN.fullmatch(text):
        return nn.AdaptiveAvgPool2d(int(found[1]))
    if found := _BLOCK.fullmatch(text):
        inputs, outputs, kernel, stride = map(int, found.groups()[1:5])
        sizes = (inputs, outputs, kernel, stride)
        return verified_block(found[1], sizes, found[6], activation)
    raise ValueError(f"there is no layer {text!r}")
