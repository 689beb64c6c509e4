"""Arithmetics: which ones a device is fast in, and the settings that each of them needs.

A search may run in any of them. What it finds is judged in ``fp32``: IEEE float32 without TF32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]
"""What a search runs in."""
Asked = Literal["auto", "fp32", "tf32", "bf16"]
"""What may be asked for a search; ``auto`` is the fastest that agrees with the network."""
Arithmetic = Asked | Literal["float64"]
"""What may be asked for an audit: curvature also supports float64."""

_FASTEST_FIRST: tuple[Precision, ...] = ("bf16", "tf32", "fp32")
# NVIDIA GPUs multiply TF32 and bfloat16 from this compute capability on.
_AMPERE = (8, 0)


def candidates(asked: Asked, device: torch.device) -> tuple[Precision, ...]:
    """The precisions to try for searches on a device, the fastest first and ``fp32`` last.

    ``auto`` leaves out what the device does not multiply natively; ``bf16`` and ``tf32`` stand for
    themselves and the more precise ones after them. A CPU has no TF32.
    """
    fastest = asked
    if asked == "auto":
        fastest = "bf16" if multiplies_bf16(device) else "fp32"
    found = _FASTEST_FIRST[_FASTEST_FIRST.index(fastest) :]
    return found if device.type == "cuda" else tuple(one for one in found if one != "tf32")


def coarsest(precisions: Iterable[Precision]) -> Precision:
    """The one with the fewest bits; ``fp32`` of none."""
    return min(precisions, key=_FASTEST_FIRST.index, default="fp32")


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions that multiply in bfloat16: AMX or AVX512-BF16 on a CPU.

    A GPU that has them has TF32, too.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _AMPERE
    known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, name, bool)() for name in known)


def arithmetic(precision: Precision) -> AbstractContextManager[None]:
    """The settings of a precision inside the block; the caller's are restored on exit.

    ``fp32`` disables TF32, to whose ten bits PyTorch rounds the inputs of convolutions on recent
    GPUs; ``tf32`` and ``bf16`` allow it for what is in float32. Convolutions are deterministic in
    all. The settings are the process's, not the thread's.
    """
    return _settings(deterministic=True, allow_tf32=precision != "fp32")


def default_precision() -> AbstractContextManager[None]:
    """PyTorch's defaults inside the block: TF32 in convolutions alone, and the fastest kernels.

    The caller's settings are restored on exit.
    """
    return _settings(deterministic=False, allow_tf32=True, matmul="highest")


@contextmanager
def _settings(
    *, deterministic: bool, allow_tf32: bool, matmul: str | None = None
) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(matmul or ("high" if allow_tf32 else "highest"))
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=deterministic, allow_tf32=allow_tf32
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)
