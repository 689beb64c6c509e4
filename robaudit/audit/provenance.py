"""How to get the same numbers again: versions, device, seed, command, commit."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Literal

import torch

import robaudit
from robaudit.engine import Precision
from robaudit.schema import Git, Provenance

_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "safetensors", "pyautoattack")


def provenance(
    *,
    seed: int,
    started: datetime,
    seconds: float,
    devices: Sequence[torch.device],
    batch_size: int | None,
    precision: Precision | Literal["float64"] = "fp32",
    nudge: float = 0.0,
) -> Provenance:
    """The circumstances of a run that ends now.

    Args:
        precision: of searches, or ``float64`` of curvature; everything else is in float32.
        nudge: as :func:`robaudit.engine.edge_nudge`.
    """
    return Provenance(
        argv=list(sys.argv),
        seed=seed,
        started=started.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        seconds=seconds,
        versions=_versions(),
        device=_named(devices),
        precision=_precision(precision),
        batch_size=batch_size,
        git=_git(),
        edges=nudge or None,
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "robaudit": robaudit.__version__}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _precision(precision: Precision | Literal["float64"]) -> str:
    if precision == "fp32":
        return "fp32"
    return f"fp32, {'curvature' if precision == 'float64' else 'searches'} in {precision}"


def _named(devices: Sequence[torch.device]) -> str:
    """``cpu (2 threads)``, ``cuda:0 (NVIDIA H100)``, ``cuda:0, cuda:1 (NVIDIA H100)``."""
    names = ", ".join(map(str, devices))
    if devices[0].type != "cuda":
        return f"{names} ({torch.get_num_threads()} threads{' each' if len(devices) > 1 else ''})"
    kinds = dict.fromkeys(torch.cuda.get_device_name(device) for device in devices)
    return f"{names} ({', '.join(kinds)})"


def _git() -> Git | None:
    """The commit of the working directory; ``None`` outside a repository or without git."""

    def ask(*words: str) -> str:
        return subprocess.run(  # noqa: S603 - fixed words, no shell
            ["git", *words],  # noqa: S607 - whichever git the user has
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()

    try:
        return Git(commit=ask("rev-parse", "HEAD"), dirty=bool(ask("status", "--porcelain")))
    except (OSError, subprocess.SubprocessError):
        return None
