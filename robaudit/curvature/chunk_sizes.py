"""How many images, and how many logit gradients per image, are processed together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.curvature.factors import fixed
from robaudit.curvature.layers import Layer, recording
from robaudit.errors import UsageError

# Numbers per layer in one backward sweep: what fits a CPU's cache, what fills a GPU.
_SWEPT = {"cpu": 1 << 21, "cuda": 1 << 28}
_MOST_IMAGES = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class Chunks:
    """``images`` per forward pass, ``columns`` logit gradients per backward sweep."""

    images: int
    columns: int


def evenly(n: int, most: int) -> Iterator[slice]:
    """Slices of ``n >= 2`` rows of nearly equal size, each with at least two rows.

    A slice has at most ``most >= 2`` rows, except that three rows are not split.

    >>> [part.stop - part.start for part in evenly(65, 32)]
    [21, 22, 22]
    >>> [part.stop - part.start for part in evenly(5, 2)]
    [2, 3]
    """
    parts = max(1, min(-(-n // most), n // 2))
    for part in range(parts):
        yield slice(part * n // parts, (part + 1) * n // parts)


@dataclass(frozen=True)
class Footprint:
    """Sizes of one image's intermediate results.

    Attributes:
        outputs: numbers in the outputs of all layers.
        largest: numbers in the largest output of a layer.
        patches: numbers in the largest unfolded input of a layer.
        itemsize: bytes per number.
    """

    outputs: int
    largest: int
    patches: int
    itemsize: int


def footprint(model: nn.Module, layers: Sequence[Layer], image: Tensor) -> Footprint:
    """Measured on two copies of one image, ``(1, c, h, w)``."""
    with torch.no_grad(), recording(layers) as record:
        model(image.expand(2, *image.shape[1:]))
    sizes = [output.numel() // 2 for output in record.all_outputs()]
    unfolded = [fixed(calls).numel() // 2 for calls in record.calls.values()]
    return Footprint(
        sum(sizes), max(sizes, default=1), max(unfolded, default=1), image.element_size()
    )


def chunks(foot: Footprint, columns: int, device: torch.device, memory: int | None) -> Chunks:
    """Sizes that are fast on the device and need at most ``memory`` bytes, by estimate.

    A forward pass keeps about five times the layers' outputs (inputs, copies, tensors saved by
    activations); a sweep holds about four gradients of the largest layer and its unfolded input. A
    network is run on at least two images; see :func:`~robaudit.engine.logits.logits_of`.

    Raises:
        UsageError: two images and one gradient of each do not fit.
    """
    kind = device.type
    swept = _SWEPT.get(kind, 1 << 24)
    together = max(1, min(columns, swept // (2 * foot.largest)))
    images = min(max(2, swept // (foot.largest * together)), _MOST_IMAGES.get(kind, 64))
    if memory is None:
        return Chunks(images, together)
    fixed, per_column = 5 * foot.outputs + 2 * foot.patches, 4 * foot.largest
    numbers = memory // foot.itemsize
    least = 2 * (fixed + per_column)
    if numbers < least:
        raise UsageError(
            f"one image needs about {least // 2 * foot.itemsize} bytes of memory, and two are "
            f"processed together; {memory} were granted",
            f"Grant at least {least * foot.itemsize}.",
        )
    together = min(together, (numbers // 2 - fixed) // per_column)
    return Chunks(min(images, numbers // (fixed + together * per_column)), together)
