"""The arithmetic that training runs in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from robaudit.engine import full_precision

Arithmetic = Literal["fp32", "tf32", "bf16"]


@contextmanager
def arithmetic(kind: Arithmetic, device: torch.device) -> Iterator[None]:
    """``fp32`` in full; ``tf32`` in matrix products and convolutions; ``bf16`` by autocast.

    The caller's settings come back afterwards. Weights stay in float32 throughout. Only ``fp32``
    also asks for deterministic convolutions.
    """
    if kind == "fp32":
        with full_precision():
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
