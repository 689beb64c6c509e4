"""Random augmentation of training images, drawn for a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from robaudit.errors import UsageError
from robaudit.training.autoaugment import AutoAugment
from robaudit.training.mixup import Mixup

if TYPE_CHECKING:
    from robaudit.types import Images, Labels


@dataclass(frozen=True)
class Augmentation:
    """What is done to every batch of training images, in the order of the attributes.

    Attributes:
        pad: zeros on each side before a random crop of the original size.
        flip: whether half of the images are mirrored.
        brightness: largest change of the factor 1 that multiplies each image.
        policy: a learned one, such as AutoAugment's.
        cutout: side of the square that is hidden in each image, in pixels.
        mixup: mixes each image and label with another of the batch.
    """

    pad: int = 0
    flip: bool = False
    brightness: float | None = None
    policy: AutoAugment | None = None
    cutout: int | None = None
    mixup: Mixup | None = None

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse images ``(c, h, w)`` that cannot be augmented like this.

        Raises:
            UsageError: with the setting.
        """
        if self.cutout is not None and self.cutout > min(shape[1:]):
            raise UsageError(
                f"cutout = {self.cutout}: the images have {shape[1]} x {shape[2]} pixels",
                "The side of the hidden square is at most that of the images.",
            )
        if self.policy is not None and shape[0] not in (1, 3):
            raise UsageError(f"autoaugment takes grey and RGB images, not {shape[0]} channels")

    def __call__(
        self, x: Images, y: Labels, classes: int, seed: int, generator: torch.Generator
    ) -> tuple[Images, Tensor]:
        """The batch as it is trained on: images, and labels ``(n,)`` or targets ``(n, k)``.

        Args:
            x, y: images ``(n, c, h, w)`` and labels ``(n,)``.
            classes: ``k``.
            seed: of the draws that are one number for the batch.
            generator: of all other draws, on the device of ``x``.
        """
        x = augment(x, self.pad, self.flip, generator)
        if self.brightness is not None:
            x = brightened(x, self.brightness, generator)
        if self.policy is not None:
            x = self.policy(x)
        if self.cutout is not None:
            x = cutout(x, self.cutout, generator)
        return (x, y) if self.mixup is None else self.mixup(x, y, classes, seed, generator)


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


def brightened(x: Images, most: float, generator: torch.Generator | None = None) -> Images:
    """Each image times a factor of its own, uniform in ``[1 - most, 1 + most]``, clipped to [0, 1].

    The transform of torchvision's ``ColorJitter(brightness=most)``, images drawn at once.

    Args:
        x: images ``(n, c, h, w)`` in ``[0, 1]``.
        most: largest change of the factor, at most 1.
        generator: of the random draws, on the device of ``x``.
    """
    drawn = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device, dtype=x.dtype)
    return (x * (1 + most * (2 * drawn - 1))).clamp(0, 1)


def cutout(x: Images, side: int, generator: torch.Generator | None = None) -> Images:
    """Fill a square of each image with zeros.

    The square has ``side`` pixels on each side and is centred on a pixel drawn uniformly; what lies
    outside the image is cut off.

    Args:
        x: images ``(n, c, h, w)``.
        side: in pixels.
        generator: of the random draws, on the device of ``x``.

    Source: T. DeVries & G. Taylor, "Improved Regularization of Convolutional Neural Networks with
    Cutout", 2017.
    """
    n, _, height, width = x.shape

    def covered(size: int) -> Tensor:
        first = torch.randint(0, size, (n, 1), generator=generator, device=x.device) - side // 2
        at = torch.arange(size, device=x.device)
        return (first <= at) & (at < first + side)

    hidden = covered(height)[:, None, :, None] & covered(width)[:, None, None, :]
    return x.masked_fill(hidden, 0)
