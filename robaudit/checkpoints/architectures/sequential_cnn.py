"""A plain ``nn.Sequential`` of convolutions, activations and linear layers, as the verification
community trains them.

The layers are written one after another, each at its index: ``conv3x16k4s2p1`` (inputs, outputs,
kernel, stride, padding; ``n`` behind it for no bias), ``norm16``, ``linear2048x100``, ``relu``,
``maxpool``, ``avgpool`` (both 2x2), ``globalpool``, ``flatten``, ``pad12`` (one zero before and two
behind each row and column) and ``skip``, which does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor, nn

_CONV = re.compile(r"conv(\d+)x(\d+)k(\d+)s(\d+)p(\d+)(n?)")
_LINEAR = re.compile(r"linear(\d+)x(\d+)(n?)")
_NORM = re.compile(r"norm(\d+)")
_PLAIN: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "flatten": nn.Flatten,
    "skip": nn.Identity,
    "maxpool": lambda: nn.MaxPool2d(2),
    "avgpool": lambda: nn.AvgPool2d(2),
    "globalpool": lambda: nn.AdaptiveAvgPool2d(1),
    "pad12": lambda: nn.ZeroPad2d((1, 2, 1, 2)),
}


class SequentialCNN(nn.Sequential):
    """The layers in turn; maps are flattened before the first linear one where no layer did."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)``."""
        for layer in self:
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def sequential_cnn(layers: str) -> nn.Module:
    """The network with these layers, joined by ``-``.

    Raises:
        ValueError: there is no such layer.

    >>> sequential_cnn("conv1x4k3s1p0-relu-flatten-linear144x10")
    SequentialCNN(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1))
      (1): ReLU()
      (2): Flatten(start_dim=1, end_dim=-1)
      (3): Linear(in_features=144, out_features=10, bias=True)
    )
    """
    return SequentialCNN(*map(_layer, layers.split("-")))


def _layer(text: str) -> nn.Module:
    if text in _PLAIN:
        return _PLAIN[text]()
    if found := _CONV.fullmatch(text):
        inputs, outputs, kernel, stride, padding = map(int, found.groups()[:5])
        return nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=not found[6])
    if found := _LINEAR.fullmatch(text):
        return nn.Linear(int(found[1]), int(found[2]), bias=not found[3])
    if found := _NORM.fullmatch(text):
        return nn.BatchNorm2d(int(found[1]))
    raise ValueError(f"there is no layer {text!r}")
