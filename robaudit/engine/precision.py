"""Full float32 arithmetic, whatever the process around has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

# Of searches, whose finds are verified in fp32; float64 is of curvature alone.
Precision = Literal["fp32", "bf16"]
Arithmetic = Precision | Literal["float64"]


@contextmanager
def full_precision() -> Iterator[None]:
    """No TF32 and deterministic convolutions inside; the caller's settings come back afterwards.

    PyTorch lets convolutions on recent GPUs round their inputs to TF32's ten bits by default; a
    verdict and a curvature said to be in float32 must not.
    """
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
