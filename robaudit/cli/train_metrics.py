"""A row of ``metrics.csv``: what an epoch of training gave and took."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from robaudit.cli.train_folder import Row
    from robaudit.training.fitting import Epoch

BEST = "accuracy.pgd.validation"
"""The column whose largest value is the best epoch's."""


def row_of(epoch: Epoch, device: torch.device) -> Row:
    """Rate, loss, time, memory, and accuracy and robust loss on the examples held out.

    ``seconds`` are those of the epoch's steps, ``images_per_second`` follow from them.
    """
    row: Row = {
        "epoch": epoch.number,
        "learning_rate": epoch.learning_rate,
        "loss": epoch.loss,
        "seconds": round(epoch.seconds, 3),
        "images_per_second": round(epoch.images / max(epoch.seconds, 1e-9), 1),
        "peak_memory_gib": _peak_memory(device),
    }
    found = epoch.validation
    if found is not None:
        row |= {
            "accuracy.clean.validation": found.clean,
            BEST: found.robust,
            "loss.robust.validation": found.loss,
        }
    return row


def _peak_memory(device: torch.device) -> float | None:
    """In GiB: on a GPU the most that tensors took in the epoch, validation included; on a CPU the
    most that the process has held since it began, where the system says so.
    """
    import torch

    if device.type == "cuda":
        found = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return round(found / 2**30, 3)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    # In bytes on macOS, elsewhere in KiB.
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 3)
