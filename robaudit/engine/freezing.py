"""Run a network without leaving a trace in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from robaudit.engine.door import door
from robaudit.engine.precision import full_precision


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no parameter gradients, full float32; everything as before afterwards.

    The model is behind :func:`~robaudit.engine.door.door` meanwhile.
    Frozen parameters also keep attack libraries from filling ``param.grad``.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with evaluating(model), full_precision(), door(model):
            yield model
    finally:
        for parameter, want in wanted:
            parameter.requires_grad_(want)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; the mode of every module is restored on exit."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes:
            module.training = mode
