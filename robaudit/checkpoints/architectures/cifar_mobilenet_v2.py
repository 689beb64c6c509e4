"""MobileNetV2 with torchvision's keys and CIFAR's strides: the stem and the second stage keep the
resolution. No shape tells it from torchvision's own.

Source: M. Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, as
in chenyaofo's pytorch-cifar-models.
"""

from __future__ import annotations

from torch import nn
from torchvision.models import MobileNetV2

from robaudit.checkpoints.architectures.layers import conv
from robaudit.checkpoints.architectures.mobilenet_v2 import STAGES


def cifar_mobilenet_v2(width: int = 100, *, classes: int = 10, channels: int = 3) -> nn.Module:
    """The network with its widths times ``width`` percent."""
    network: nn.Module = MobileNetV2(
        classes,
        width_mult=width / 100,
        inverted_residual_setting=[list(stage) for stage in STAGES],
    )
    for path, module in list(network.named_modules()):
        if path == "features.0.0" and isinstance(module, nn.Conv2d):
            network.set_submodule(path, conv(channels, module.out_channels, 3))
        if isinstance(module, nn.ReLU6):
            module.inplace = False
    return network
