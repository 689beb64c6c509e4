"""Errors that name the module where a second derivative does not exist or is wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.curvature.derivatives import NoSecondDerivativeError, check_derivatives
from robaudit.curvature.faulty_modules import (
    differentiable_once_only,
    module_without_second_derivative,
)
from robaudit.curvature.finite_differences import Derivative
from robaudit.curvature.per_example import wanting_gradients
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import device_of
from robaudit.errors import first_line

# Words in the messages of automatic differentiation where a function has no derivative.
_WORDS = ("derivative", "differentiate twice", "does not require grad", "double backward")


@contextmanager
def checked_double_backward(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layers: Sequence[str] | None = None,
    needs: Derivative = "hessian",
) -> Iterator[None]:
    """Check the derivatives, then turn autograd's errors inside the block into named ones.

    An autograd Function marked ``once_differentiable`` raises no error: with gradients asked for in
    given tensors, autograd skips it and the product is wrong. So the graph of the gradient is
    searched for such marks first.

    Args:
        model: frozen.
        x, y: images ``(n, c, h, w)`` and labels; the first two are run, and some are drawn to check
            derivatives on (:func:`robaudit.curvature.derivatives.check_derivatives`).
        layers: see :func:`robaudit.curvature.selection.chosen_parameters`.
        needs: the highest derivative that is used inside.

    Raises:
        NoSecondDerivativeError: the network, or one of its modules, has no second derivative, or a
            wrong one.
        NotMeasuredError: its gradient is wrong.
    """
    device = device_of(model)
    few, labels = x[:2].to(device), y[:2].to(device)
    try:
        leaves = chosen_parameters(model, layers)
        with wanting_gradients(leaves):
            loss = F.cross_entropy(model(few), labels)
            gradients = torch.autograd.grad(
                loss, list(leaves.values()), create_graph=True, materialize_grads=True
            )
        if differentiable_once_only(gradients):
            raise RuntimeError("a function in it is differentiable once only (no derivative)")
        check_derivatives(model, x, needs, layers)
        yield
    except RuntimeError as error:
        reason = first_line(error)
        if not any(word in reason.lower() for word in _WORDS):
            raise
        name = module_without_second_derivative(model, few)
        where = f" in {name}" if name else ""
        raise NoSecondDerivativeError(
            f"the network resists double backward{where}: {reason}"
        ) from error
