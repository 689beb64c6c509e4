"""Reasons to doubt attacks that follow a network's gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from robaudit.attacks.gradient_check import NO_GRADIENT, GradientCheck, check_gradients
from robaudit.audit.context import Context
from robaudit.audit.doubts import Doubt
from robaudit.audit.names import authors
from robaudit.errors import NotMeasuredError


def gradients(context: Context, x: Tensor) -> Iterator[str | Doubt]:
    """Check the network's derivative; give a warning or doubt for each problem.

    Args:
        x: the first of the audited images.
    """
    index = context.splits[context.main].index[: len(x)]
    try:
        if context.nudge:
            yield (
                "the network's gradient is zero at pixels of exactly 0 or 1 and is not just inside "
                "(as a clamp's is at its bounds from PyTorch 2.14 on; this is "
                f"{torch.__version__}): attacks take it {context.nudge:.2g} inside the box, and "
                "verdicts where the image is"
            )
        checked = check_gradients(context.model, x, context.threat, seed=context.seed, index=index)
    except NotMeasuredError as error:
        if error.message != NO_GRADIENT:
            raise
        yield Doubt(
            "attacks",
            f"no gradient of the logits reaches the image ({error.message}): attack it without "
            "gradients (--attack square)",
        )
        return
    if checked.problems:
        yield Doubt("attacks", _words(checked, authors(context.model)))


def _words(checked: GradientCheck, own: Callable[[str], str]) -> str:
    said = "; ".join(checked.problems[:2])
    said += ": gradients are masked, and attacks that follow them overstate robustness"
    faulty = checked.faulty
    if faulty is None:
        return f"{said}; only black-box attacks (--attack square) say anything"
    if faulty.straight and faulty.name:
        return own(f"{said}; {faulty} moves by steps: try --straight-through {faulty.name}")
    return own(f"{said}; the derivative of {faulty} is wrong")
