"""The device that a classifier runs on."""

from __future__ import annotations

import torch
from torch import nn

from robaudit.errors import UsageError


def resolve_device(device: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        UsageError: the name is unknown, or the CUDA device does not exist.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}", "Use auto, cpu, cuda or cuda:0.")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(
            f"--device {device}: this torch sees no CUDA device",
            "Use --device cpu, or install a torch built for your GPU's driver.",
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"--device {device}: there are only {count} CUDA devices")
    return found


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for a model without parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
