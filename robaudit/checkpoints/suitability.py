"""Whether a network can be measured on a set of examples."""

from __future__ import annotations

import torch
from torch import nn

from robaudit.engine import device_of, frozen
from robaudit.engine.logits import logits_of
from robaudit.engine.raised import blame, is_foreign
from robaudit.errors import CheckpointError, DataError, NotMeasuredError, UsageError
from robaudit.types import Examples

_LOOKED_AT = 64
_ONE_LEVEL = 1.0001 / 255


def suits(model: nn.Module, examples: Examples) -> bool:
    """Whether :func:`check_suits` accepts it."""
    try:
        check_suits(model, examples)
    except (CheckpointError, UsageError):
        return False
    return True


def check_suits(model: nn.Module, examples: Examples) -> None:
    """Refuse a model that cannot be measured on these examples.

    Raises:
        CheckpointError: it does not take the images, gives no floating-point logits, or has fewer
            outputs than there are classes.
        DataError: labels are negative, or the images are black but for one level of 255.
    """
    x = examples.x[:2].to(device_of(model))
    shape = tuple(x.shape[1:])
    try:
        with frozen(model), torch.no_grad():
            logits = logits_of(model, x)
    except NotMeasuredError as error:
        raise CheckpointError(error.message, error.advice) from error
    except BaseException as error:
        if not is_foreign(error):
            raise
        raise CheckpointError(
            f"the network does not take images of shape {shape}: {blame(error)}",
            "Check --data and --arch: channels and image size must be those of training.",
        ) from error
    brightest = float(examples.x[:_LOOKED_AT].max())
    if brightest <= _ONE_LEVEL:
        raise DataError(
            f"the images of {examples.name} are nearly black: their largest value is "
            f"{brightest:.2g}, in units of [0, 1]",
            "They were divided by 255 twice, or images in [0, 1] were saved as uint8: save them "
            "once more.",
        )
    classes, highest = logits.shape[1], int(examples.y.max())
    if classes == 1:
        raise CheckpointError(
            "the network has one output, which cannot distinguish classes",
            "Of a network for two classes whose output z is the second's logit, an --arch factory "
            "returns two: torch.cat([torch.zeros_like(z), z], 1).",
        )
    if int(examples.y.min()) < 0:
        raise DataError(f"labels of {examples.name} are negative")
    if highest >= classes or (examples.classes or 0) > classes:
        of = f"{examples.classes} classes" if examples.classes else f"the label {highest}"
        raise CheckpointError(
            f"the network has {classes} outputs, but {examples.name} has {of}",
            "This checkpoint was trained on other data; choose the right --data.",
        )
