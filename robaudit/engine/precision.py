"""Full float32 arithmetic, independent of the process's settings."""

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
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
