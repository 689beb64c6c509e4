"""Whether a network and a set of examples belong together at all."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robaudit.engine import device_of, frozen
from robaudit.errors import CheckpointError, DataError
from robaudit.types import Examples

CANNOT_RUN = (RuntimeError, ValueError, TypeError, IndexError)
"""What a network raises for images it was not made for."""


def check_suits(model: nn.Module, examples: Examples) -> None:
    """Refuse a model that these examples cannot be put through.

    Raises:
        CheckpointError: it does not take the images, gives no logits, or has fewer outputs than
            there are classes.
        DataError: labels are negative.
    """
    x = examples.x[:2].to(device_of(model))
    shape = tuple(x.shape[1:])
    try:
        with frozen(model), torch.no_grad():
            logits = model(x)
    except CANNOT_RUN as error:
        first = str(error).splitlines()[0][:200]
        raise CheckpointError(
            f"the network does not take images of shape {shape}: {first}",
            "Check --data and --arch: channels and image size must be those of training.",
        ) from error
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(x):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CheckpointError(
            f"the network's output for {len(x)} images is {got}, not logits (n, classes)",
            "An --arch factory may wrap the network so that it returns logits alone.",
        )
    classes, highest = logits.shape[1], int(examples.y.max())
    if int(examples.y.min()) < 0:
        raise DataError(f"labels of {examples.name} are negative")
    if highest >= classes or (examples.classes or 0) > classes:
        of = f"{examples.classes} classes" if examples.classes else f"the label {highest}"
        raise CheckpointError(
            f"the network has {classes} outputs, but {examples.name} has {of}",
            "This checkpoint was trained on other data; choose the right --data.",
        )
