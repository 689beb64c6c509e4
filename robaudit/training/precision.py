"""The precision that training runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from robaudit.engine import arithmetic

TrainingPrecision = Literal["fp32", "tf32", "bf16"]


@contextmanager
def training_precision(kind: TrainingPrecision, device: torch.device) -> Iterator[None]:
    """Full float32, TF32 in matrix products and convolutions, or bfloat16 by autocast.

    The caller's settings are restored on exit. Weights stay in float32. Only ``fp32`` also makes
    convolutions deterministic.
    """
    if kind == "fp32":
        with arithmetic("fp32"):
            yield
        return
    matmul = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with (
            torch.backends.cudnn.flags(
                enabled=True, benchmark=True, deterministic=False, allow_tf32=True
            ),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == "bf16"),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(matmul)
