"""Run a network and restore its state afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from robaudit.engine.logits import guarded_calls
from robaudit.engine.precision import arithmetic


@contextmanager
def frozen(model: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no parameter gradients, full float32, and guarded calls inside the block.

    The model's state is restored on exit. Frozen parameters also keep attack libraries from filling
    ``param.grad``. See :func:`~robaudit.engine.logits.guarded_calls`.
    """
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        with evaluating(model), arithmetic("fp32"), guarded_calls(model):
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
