"""Full float32 arithmetic, and PyTorch's default one, whatever the process's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

# Precisions of searches, whose results are verified in fp32; curvature also supports float64.
Precision = Literal["fp32", "bf16"]
Arithmetic = Precision | Literal["float64"]


@contextmanager
def full_precision() -> Iterator[None]:
    """Disable TF32 and make convolutions deterministic inside the block.

    By default, PyTorch rounds the inputs of convolutions on recent GPUs to TF32's ten bits. The
    caller's settings are restored on exit.
    """
    with _settings(deterministic=True, allow_tf32=False):
        yield


@contextmanager
def default_precision() -> Iterator[None]:
    """PyTorch's defaults inside the block: TF32 in convolutions, and the fastest kernels.

    The caller's settings are restored on exit.
    """
    with _settings(deterministic=False, allow_tf32=True):
        yield


@contextmanager
def _settings(*, deterministic: bool, allow_tf32: bool) -> Iterator[None]:
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=deterministic, allow_tf32=allow_tf32
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
