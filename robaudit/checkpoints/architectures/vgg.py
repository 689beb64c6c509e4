"""VGG networks in their CIFAR forms: 3x3 convolutions, max pooling, with or without batch norm.

Source: K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image
Recognition", ICLR 2015. The keys are ``features.N`` and ``classifier`` (kuangliu's pytorch-cifar)
or ``classifier.N`` with hidden layers (chenyaofo, chengyangfu and others).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import PooledFlatten, conv, one_of
from robaudit.checkpoints.architectures.plans import head_layers, plan_of


class VGG(nn.Module):
    """Convolutions with ReLU and max pooling, flattened, then linear layers with ReLU."""

    def __init__(
        self,
        plan: list[str],
        head: list[tuple[int, int]],
        classes: int,
        channels: int,
        norm: bool,
        pooled: int,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for item in plan:
            if item == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(conv(inputs, int(item), 3, bias=True))
            inputs = int(item)
            layers += [nn.BatchNorm2d(inputs)] if norm else []
            layers.append(nn.ReLU())
        self.features = nn.Sequential(*layers)
        self.flatten = PooledFlatten(pooled)
        inputs *= pooled**2
        if not head:
            self.classifier: nn.Module = nn.Linear(inputs, classes)
            return
        parts: list[tuple[str, nn.Module]] = []
        for i, (index, width) in enumerate(head):
            outputs = width or classes
            parts.append((str(index), nn.Linear(inputs, outputs)))
            parts += [(f"act{index}", nn.ReLU())] if i + 1 < len(head) else []
            inputs = outputs
        self.classifier = nn.Sequential(OrderedDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        logits: Tensor = self.classifier(self.flatten(self.features(x)))
        return logits


def vgg(
    depth: int = 16,
    *,
    plan: str = "",
    norm: str = "batch",
    head: str = "",
    pooled: int = 1,
    classes: int = 10,
    channels: int = 3,
) -> nn.Module:
    """VGG-11, 13, 16 or 19.

    Args:
        plan: in place of ``depth``, the width of each convolution and ``M`` for max pooling, as in
            ``64-M-128-M``.
        norm: ``batch`` for batch norm behind each convolution, or ``none``.
        head: the classifier's linear layers by index and width, the last without a width, as in
            ``0:512-3:512-6``; by default one layer called ``classifier``.
        pooled: side of the map that enters the classifier.
    """
    one_of(("batch", "none"), norm=norm)
    return VGG(plan_of(depth, plan), head_layers(head), classes, channels, norm == "batch", pooled)
