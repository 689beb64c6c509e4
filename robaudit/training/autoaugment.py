"""AutoAugment: a learned policy of operations on images, torchvision's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from robaudit.engine.images import as_float
from robaudit.errors import UsageError

if TYPE_CHECKING:
    from robaudit.types import Images


@dataclass(frozen=True)
class AutoAugment:
    """Each image by a pair of operations that torchvision draws from the policy for CIFAR-10.

    Images are rounded to 8 bits for it. The draws come from torch's global generator on the CPU,
    which the state of a training run includes.

    Attributes:
        policy: torchvision's transform.

    Source: E. Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data", CVPR 2019.
    """

    policy: Any

    @classmethod
    def for_cifar10(cls) -> AutoAugment:
        """The policy found on CIFAR-10.

        Raises:
            UsageError: torchvision is not installed.
        """
        try:
            from torchvision.transforms import AutoAugment as Transform
            from torchvision.transforms import AutoAugmentPolicy
        except ImportError:
            raise UsageError(
                "autoaugment = true takes torchvision's policy, and torchvision is not installed",
                "pip install torchvision, or leave autoaugment out.",
            ) from None
        return cls(Transform(AutoAugmentPolicy.CIFAR10))

    def __call__(self, x: Images) -> Images:
        """Changed images; ``x`` are ``(n, c, h, w)`` with 1 or 3 channels, on any device."""
        stored = x.mul(255).round_().to(torch.uint8).cpu()
        changed = torch.stack([self.policy(image) for image in stored])
        return as_float(changed.to(x.device)).to(x.dtype)
