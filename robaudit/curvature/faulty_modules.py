"""Which module of a network has a wrong derivative, or no second one.

Every module is run again on its own recorded input, in the order in which modules finish, so that a
module is examined after those inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from robaudit.curvature.finite_differences import Derivative, wrong_derivatives
from robaudit.engine import generator
from robaudit.engine.calls import called_again, floating, is_floating, module_calls, module_label
from robaudit.engine.graph import nodes_behind
from robaudit.engine.raised import is_foreign


def module_with_wrong_derivative(model: nn.Module, x: Tensor, kind: Derivative) -> str | None:
    """Name and class of the first such module, ``None`` where there is none.

    For ``f = <c, z> + |z|^2 / 2`` of the outputs ``z``, in inputs and parameters; see
    :func:`robaudit.curvature.finite_differences.wrong_derivatives`.
    """

    def is_wrong(module: nn.Module, inputs: Any) -> bool:
        leaves, outputs = _isolated(module, inputs, with_parameters=True)
        if not leaves:
            return False

        def flat() -> Tensor:
            return torch.cat([out.reshape(-1) for out in outputs()])

        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            z = flat()
        c = torch.randn(z.shape, generator=generator(0, "faulty modules")).to(z)
        wrong = wrong_derivatives(flat, lambda z: (c * z + z * z / 2).sum(), leaves, [kind])
        return wrong[kind] is not None

    for name, module, inputs in module_calls(model, x):
        try:
            if is_wrong(module, inputs):
                return _named(name, module)
        except BaseException as error:
            if not is_foreign(error):
                raise  # a module that cannot be run alone is not judged
    return None


def module_without_second_derivative(model: nn.Module, x: Tensor) -> str | None:
    """Name and class of the innermost module whose output cannot be differentiated twice."""
    for name, module, inputs in module_calls(model, x):
        if not _twice_differentiable(module, inputs):
            return _named(name, module)
    return None


def differentiable_once_only(gradients: Sequence[Tensor]) -> bool:
    """Whether a function in the graph of the gradients is marked ``once_differentiable``."""
    return any(node.name().endswith("::Error") for node in nodes_behind(*gradients))


def _twice_differentiable(module: nn.Module, inputs: Any) -> bool:
    leaves, outputs = _isolated(module, inputs, with_parameters=False)
    if not leaves:
        return True
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            outs = outputs()
            if not outs:
                return True
            if not all(out.requires_grad for out in outs):
                return False
            value = torch.stack([F.softplus(out).sum() for out in outs]).sum()
            gradients = torch.autograd.grad(
                value, leaves, create_graph=True, materialize_grads=True
            )
            if differentiable_once_only(gradients):
                return False
            bent = sum(g.square().sum() for g in gradients if g.requires_grad)
            if isinstance(bent, Tensor):
                torch.autograd.grad(bent, leaves, materialize_grads=True)
    except RuntimeError:
        return False
    return True


def _isolated(
    module: nn.Module, inputs: Any, *, with_parameters: bool
) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
    """Leaves for the module's inputs and parameters, and its floating-point outputs at these."""
    given = [_leaf(value) for value in floating(inputs)]
    own = {}
    if with_parameters:
        own = {name: _leaf(p) for name, p in module.named_parameters() if is_floating(p)}

    def outputs() -> list[Tensor]:
        # Times one, since in-place modules must not overwrite a leaf.
        return called_again(module, inputs, [leaf * 1 for leaf in given], own)

    return [*given, *own.values()], outputs


def _named(name: str, module: nn.Module) -> str:
    return module_label(name, type(module).__name__)


def _leaf(value: Tensor) -> Tensor:
    return value.detach().clone().requires_grad_()
