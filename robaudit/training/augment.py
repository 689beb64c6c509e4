"""Random augmentation of training images, drawn for a whole batch at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from robaudit.types import Images


def augment(x: Images, pad: int, flip: bool, generator: torch.Generator | None = None) -> Images:
    """Shift each image by up to ``pad`` pixels, filled with zeros, and mirror half of them.

    Args:
        x: images ``(n, c, h, w)``.
        pad: zeros added on each side before a random crop of the original size.
        flip: whether to mirror each image horizontally with probability one half.
        generator: of the random draws, on the device of ``x``.
    """
    n, _, height, width = x.shape
    if pad:
        shifts = torch.randint(0, 2 * pad + 1, (2, n), generator=generator, device=x.device)
        rows = shifts[0][:, None] + torch.arange(height, device=x.device)
        columns = shifts[1][:, None] + torch.arange(width, device=x.device)
        padded = F.pad(x, (pad, pad, pad, pad)).movedim(1, -1)
        example = torch.arange(n, device=x.device)[:, None, None]
        x = padded[example, rows[:, :, None], columns[:, None, :]].movedim(-1, 1).contiguous()
    if flip:
        turned = torch.rand(n, generator=generator, device=x.device) < 0.5
        mirrored: Tensor = torch.where(turned[:, None, None, None], x.flip(3), x)
        return mirrored
    return x
