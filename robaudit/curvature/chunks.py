"""How many images, and how many logit gradients for each, go through a network at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.curvature.factors import fixed
from robaudit.curvature.layers import Layer, recording
from robaudit.errors import UsageError

# Numbers per layer that are swept at once: what stays in a CPU's cache, what fills a GPU.
_SWEPT = {"cpu": 1 << 21, "cuda": 1 << 28}
_MOST_IMAGES = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True)
class Chunks:
    """``images`` per forward pass, ``columns`` logit gradients per backward sweep."""

    images: int
    columns: int


@dataclass(frozen=True)
class Footprint:
    """What one image leaves behind, in numbers; and the bytes of a number.

    Attributes:
        outputs: of all layers together.
        largest: of the layer with the largest output.
        patches: of the layer with the largest unfolded input.
    """

    outputs: int
    largest: int
    patches: int
    itemsize: int


def footprint(model: nn.Module, layers: Sequence[Layer], image: Tensor) -> Footprint:
    """Measured on one image, ``(1, c, h, w)``."""
    with torch.no_grad(), recording(layers) as record:
        model(image)
    sizes = [output.numel() for output in record.all_outputs()]
    unfolded = [fixed(calls).numel() for calls in record.calls.values()]
    return Footprint(
        sum(sizes), max(sizes, default=1), max(unfolded, default=1), image.element_size()
    )


def chunks(foot: Footprint, columns: int, device: torch.device, memory: int | None) -> Chunks:
    """Fast on the device and, by estimate, within ``memory`` bytes beside the network itself.

    A forward pass keeps about five times the layers' outputs (inputs, copies, what activations
    save); a sweep holds about four gradients of the largest layer and its unfolded input.

    Raises:
        UsageError: one image and one gradient do not fit.
    """
    kind = device.type
    together = max(1, min(columns, _SWEPT.get(kind, 1 << 24) // foot.largest))
    images = max(1, _SWEPT.get(kind, 1 << 24) // (foot.largest * together))
    images = min(images, _MOST_IMAGES.get(kind, 64))
    if memory is None:
        return Chunks(images, together)
    fixed, per_column = 5 * foot.outputs + 2 * foot.patches, 4 * foot.largest
    numbers = memory // foot.itemsize
    if numbers < fixed + per_column:
        raise UsageError(
            f"one image needs about {(fixed + per_column) * foot.itemsize} bytes of memory; "
            f"{memory} were granted",
            "Grant at least that much.",
        )
    together = min(together, (numbers - fixed) // per_column)
    return Chunks(min(images, numbers // (fixed + together * per_column)), together)
