"""The devices that a classifier runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import nn

from robaudit.errors import UsageError

EVERY_GPU = "cuda:all"
Network = TypeVar("Network", bound=nn.Module)
# Attribute of a module: the devices that share its passes; the module itself is on the first.
_DEVICES = "robaudit_devices"


def resolve_device(device: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:i``.

    Raises:
        UsageError: the name is unknown, the CUDA device does not exist, or there are several.
    """
    first, *others = resolve_devices(device)
    if others:
        raise UsageError(f"--device {device}: this runs on one device", f"Give --device {first}.")
    return first


def resolve_devices(devices: str) -> tuple[torch.device, ...]:
    """The devices for ``auto``, ``cpu``, ``cuda``, ``cuda:i``, ``cuda:all`` or a list with commas.

    ``cpu,cpu`` stands for two threads that run a network side by side as two GPUs would.

    Raises:
        UsageError: a name is unknown, a CUDA device does not exist or is named twice, or CPU and
            GPUs are mixed.
    """
    if devices == "auto":
        return (torch.device("cuda" if torch.cuda.is_available() else "cpu"),)
    if devices == EVERY_GPU:
        _check_there(torch.device("cuda"), devices)
        return tuple(torch.device("cuda", at) for at in range(torch.cuda.device_count()))
    names = devices.split(",")
    found = tuple(_named(name.strip(), devices) for name in names)
    if len(found) == 1:
        return found
    if len({one.type for one in found}) > 1:
        raise UsageError(
            f"--device {devices}: a CPU and a GPU do not share one network's examples",
            "Name GPUs alone: --device cuda:0,cuda:1.",
        )
    if found[0].type == "cuda":
        found = tuple(torch.device("cuda", one.index or 0) for one in found)
        for at, one in enumerate(found):
            if one in found[:at]:
                raise UsageError(f"--device {devices}: {one} is named twice")
    return found


def _named(name: str, given: str) -> torch.device:
    try:
        found = torch.device(name)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise UsageError(
            f"unknown device {name!r}",
            "Use auto, cpu, cuda, cuda:0, several as in cuda:0,cuda:1, or cuda:all.",
        )
    if found.type == "cuda":
        _check_there(found, given)
    return found


def _check_there(device: torch.device, given: str) -> None:
    if not torch.cuda.is_available():
        raise UsageError(
            f"--device {given}: this torch sees no CUDA device",
            "Use --device cpu, or install a torch built for your GPU's driver.",
        )
    if (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"--device {given}: there are only {count} CUDA devices")


def device_of(model: nn.Module) -> torch.device:
    """The device of a model's parameters; the CPU for a model without parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def spread(model: Network, devices: Sequence[torch.device]) -> Network:
    """The model on the first device, with its passes shared out among all of them.

    A copy of it is made for every other device when images are passed. No result depends on how
    many devices there are, beyond the rounding of other batch sizes on GPUs.
    """
    vars(model)[_DEVICES] = tuple(devices)
    return model.to(devices[0])


def devices_of(model: nn.Module) -> tuple[torch.device, ...]:
    """The devices that share a model's passes; :func:`device_of` alone unless it is spread.

    A copy of a model, and a module that has it as a part, run on the same devices.
    """
    first = device_of(model)
    for module in model.modules():
        found: tuple[torch.device, ...] = vars(module).get(_DEVICES, ())
        if found and _same(found[0], first):  # else it was moved since
            return found
    return (first,)


def _same(one: torch.device, other: torch.device) -> bool:
    return one.type == other.type and (one.index or 0) == (other.index or 0)
