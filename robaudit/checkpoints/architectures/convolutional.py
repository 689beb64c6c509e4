"""Convolutional families without residual stages, and MobileNetV2."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torchvision.models import MobileNetV2

from robaudit.checkpoints.architectures.depths import head_layers, plan_of
from robaudit.checkpoints.architectures.layers import (
    Network,
    PooledFlatten,
    conv,
    one_of,
    part_of,
    place,
)
from robaudit.checkpoints.architectures.tokens import layers_of

# Expansion, outputs, blocks and stride of MobileNetV2's stages for small images: the second keeps
# the resolution.
_MOBILE_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_MOBILE_STEM, _MOBILE_LAST = 32, 1280


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
    """VGG-11, 13, 16 or 19 for small images: 3x3 convolutions, ReLU, max pooling, linear layers.

    The keys are ``features.N`` and ``classifier`` (kuangliu's pytorch-cifar) or ``classifier.N``
    with hidden layers (chenyaofo, chengyangfu and others). Source: K. Simonyan and A. Zisserman,
    "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

    Args:
        plan: in place of ``depth``, the width of each convolution and ``M`` for max pooling, as in
            ``64-M-128-M``.
        norm: ``batch`` for batch norm behind each convolution, or ``none``.
        head: the classifier's linear layers by index and width, the last without a width, as in
            ``0:512-3:512-6``; by default one layer called ``classifier``.
        pooled: side of the map that enters the classifier.
    """
    one_of(("batch", "none"), norm=norm)
    layers: list[nn.Module] = []
    inputs = channels
    for item in plan_of(depth, plan):
        if item == "M":
            layers.append(nn.MaxPool2d(2))
            continue
        layers.append(conv(inputs, int(item), 3, bias=True))
        inputs = int(item)
        layers += [nn.BatchNorm2d(inputs)] if norm == "batch" else []
        layers.append(nn.ReLU())
    inputs *= pooled**2
    classifier: nn.Module
    if hidden := head_layers(head):
        parts: list[tuple[str, nn.Module]] = []
        for index, width in hidden:
            outputs = width or classes
            parts += [(str(index), nn.Linear(inputs, outputs)), (f"act{index}", nn.ReLU())]
            inputs = outputs
        classifier = nn.Sequential(OrderedDict(parts[:-1]))
    else:
        classifier = nn.Linear(inputs, classes)
    features = nn.Sequential(*layers)
    flatten = PooledFlatten(pooled)
    return Network([("features", features), ("flatten", flatten), ("classifier", classifier)])


class _InvertedResidual(nn.Module):
    """Expand, filter each channel by itself, project."""

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * inputs
        self.conv1 = conv(inputs, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.conv3 = conv(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.residual = stride == 1
        self.shortcut: nn.Module = nn.Identity()
        if self.residual and inputs != outputs:
            self.shortcut = nn.Sequential(conv(inputs, outputs, 1), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act2(self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x))))))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.residual else out


def mobilenet_v2(*, pooled: int = 1, classes: int = 10, channels: int = 3) -> nn.Module:
    """MobileNetV2 for small images with the keys of kuangliu's pytorch-cifar.

    As in that code base, it has ReLU in place of ReLU6 and a shortcut wherever the stride is 1.
    Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.

    Args:
        pooled: side of the map that enters the head.
    """
    stem: list[tuple[str, nn.Module]] = [
        ("conv1", conv(channels, _MOBILE_STEM, 3)),
        ("bn1", nn.BatchNorm2d(_MOBILE_STEM)),
        ("act1", nn.ReLU()),
    ]
    blocks = []
    inputs = _MOBILE_STEM
    for expansion, outputs, count, stride in _MOBILE_STAGES:
        for i in range(count):
            blocks.append(_InvertedResidual(inputs, outputs, expansion, 1 if i else stride))
            inputs = outputs
    return Network(
        [
            *stem,
            ("layers", nn.Sequential(*blocks)),
            ("conv2", conv(inputs, _MOBILE_LAST, 1)),
            ("bn2", nn.BatchNorm2d(_MOBILE_LAST)),
            ("act2", nn.ReLU()),
            ("flatten", PooledFlatten(pooled)),
            ("linear", nn.Linear(_MOBILE_LAST * pooled**2, classes)),
        ]
    )


def cifar_mobilenet_v2(width: int = 100, *, classes: int = 10, channels: int = 3) -> nn.Module:
    """MobileNetV2 for small images with torchvision's keys, as in chenyaofo's pytorch-cifar-models.

    No shape tells it from torchvision's own.

    Args:
        width: percentage that all widths are multiplied by.
    """
    stages = [list(stage) for stage in _MOBILE_STAGES]
    network: nn.Module = MobileNetV2(classes, width / 100, inverted_residual_setting=stages)
    for path, module in list(network.named_modules()):
        if path == "features.0.0" and isinstance(module, nn.Conv2d):
            network.set_submodule(path, conv(channels, module.out_channels, 3))
        if isinstance(module, nn.ReLU6):
            module.inplace = False
    return network


def small_cnn(
    *, width: int = 32, hidden: int = 200, side: int = 4, classes: int = 10, channels: int = 1
) -> nn.Module:
    """The network of TRADES for MNIST: four unpadded convolutions and three linear layers.

    Source: H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019 (the layers are those of N. Carlini and D. Wagner, S&P 2017).

    Args:
        side: of the last map: 4 for images of 28x28, 5 for 32x32.
    """
    w, v = width, 2 * width
    layers = (
        f"conv{channels}x{w}k3s1p0-relu-conv{w}x{w}k3s1p0-relu-maxpool-"
        f"conv{w}x{v}k3s1p0-relu-conv{v}x{v}k3s1p0-relu-maxpool-"
        f"flatten-linear{v * side**2}x{hidden}-relu-linear{hidden}x{hidden}-relu-"
        f"linear{hidden}x{classes}"
    )
    convs = [f"feature_extractor.conv{i}" for i in (1, 2, 3, 4)]
    return plain_cnn(layers, "-".join([*convs, *(f"classifier.fc{i}" for i in (1, 2, 3))]))


class PlainCNN(nn.Module):
    """The layers in turn, each under a name; maps are flattened before a linear layer."""

    def __init__(self, layers: list[nn.Module], names: list[str]) -> None:
        super().__init__()
        self.order = names
        for name, layer in zip(names, layers, strict=True):
            place(self, name, layer)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, k)`` of images ``(n, c, h, w)``."""
        for name in self.order:
            layer = part_of(self, name)
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
        return x


def sequential_cnn(layers: str) -> nn.Module:
    """A plain ``nn.Sequential``, as the verification community trains them.

    Args:
        layers: tokens (:mod:`.tokens`) joined by ``-``; each layer is named by its index.

    Raises:
        ValueError: there is no such layer.

    >>> list(sequential_cnn("conv1x4k3s1p0-relu-flatten-linear144x10").state_dict())
    ['0.weight', '0.bias', '3.weight', '3.bias']
    """
    made = layers_of(layers)
    return PlainCNN(made, [str(i) for i in range(len(made))])


def plain_cnn(layers: str, names: str) -> nn.Module:
    """A chain of layers under names like ``conv1``, ``conv2``, ``fc1``.

    PyTorch's tutorials, advertorch and auto_LiRPA write small networks so, and pool and activate in
    ``forward``, where a state dict does not show it.

    Args:
        layers: tokens (:mod:`.tokens`) joined by ``-``.
        names: of the layers with weights, joined by ``-``.

    Raises:
        ValueError: there is no such layer, or the names are not as many as the layers.

    >>> list(plain_cnn("flatten-linear784x8-relu-linear8x10", "fc1-fc2").state_dict())
    ['fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias']
    """
    made, left, given = layers_of(layers), names.split("-"), []
    count = len(left)
    for at, layer in enumerate(made):
        weights = any(True for _ in layer.parameters())
        if weights and not left:
            raise ValueError(f"there are more layers with weights than names: {count}")
        given.append(left.pop(0) if weights else f"step{at}")
    if left:
        raise ValueError(f"there are more names than layers with weights: {', '.join(left)}")
    return PlainCNN(made, given)
