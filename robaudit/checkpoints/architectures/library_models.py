"""Builds torchvision's and timm's models with any class count, channels and image size, offline."""

from __future__ import annotations

from typing import Any

import torchvision
from torch import nn

from robaudit.errors import did_you_mean


def torchvision_model(
    name: str, classes: int = 1000, channels: int = 3, image_size: int = 0
) -> nn.Module:
    """A model of ``torchvision.models`` with random weights.

    Args:
        image_size: for models that depend on it; 0 for their default.

    Raises:
        ValueError: torchvision has no classification model of this name.
    """
    known = torchvision.models.list_models(module=torchvision.models)
    if name not in known:
        raise ValueError(
            f"torchvision has no classification model {name!r}{did_you_mean(name, known)}"
        )
    options: dict[str, Any] = {"image_size": image_size} if image_size else {}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # slow, and the weights come from the file
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=classes, **options
    )
    if channels != 3:
        _set_channels(network, channels)
    return network


def timm_model(name: str, classes: int = 1000, channels: int = 3, image_size: int = 0) -> nn.Module:
    """A model of timm with random weights; arguments as for :func:`torchvision_model`.

    Raises:
        ImportError: timm is not installed.
        ValueError: timm has no model of this name.
    """
    import timm

    if not timm.is_model(name):
        raise ValueError(f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}")
    options = {"img_size": image_size} if image_size else {}
    if channels != 3:
        options["in_chans"] = channels
    network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **options)
    return network


def _set_channels(network: nn.Module, channels: int) -> None:
    """Make the first convolution take images of another number of channels."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.in_channels = channels
            shape = (module.out_channels, channels, *module.kernel_size)
            module.weight = nn.Parameter(module.weight.new_empty(shape))
            module.reset_parameters()
            return
    raise ValueError("the network has no convolution that takes the image")
