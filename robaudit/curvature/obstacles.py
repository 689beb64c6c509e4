"""Why a network's second derivative cannot be had, and which module stands in the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_leaves, tree_map

from robaudit.curvature.derivatives import Needs, NoSecondDerivativeError, check_derivatives
from robaudit.curvature.one_by_one import wanting_gradients
from robaudit.curvature.selection import chosen_parameters
from robaudit.engine import device_of
from robaudit.engine.calls import as_leaves, module_calls
from robaudit.errors import NotMeasuredError

# What automatic differentiation says where it can go no further.
_WORDS = ("derivative", "differentiate twice", "does not require grad", "double backward")


@contextmanager
def naming_obstacles(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    layers: Sequence[str] | None = None,
    needs: Needs = "hessian",
) -> Iterator[None]:
    """Turn automatic differentiation's refusal into an error that names the module.

    Before that the derivatives that there are have to be right:
    :func:`robaudit.curvature.derivatives.check_derivatives`.

    An autograd Function marked ``once_differentiable`` does not refuse: asked for gradients in
    given tensors, automatic differentiation passes it over, and the product comes out wrong without
    a word. So the graph of the gradient is looked through for such marks before anything runs.

    Args:
        x, y: the first two examples are run, and some are drawn to check derivatives on.
        layers: see :func:`robaudit.curvature.selection.chosen_parameters`.

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
        if _marked(gradients):
            raise RuntimeError("a function in it is differentiable once only (no derivative)")
        check_derivatives(model, x, needs, layers)
        yield
    except RuntimeError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not any(word in reason.lower() for word in _WORDS):
            raise
        name = resisting_module(model, few)
        where = f" in {name}" if name else ""
        raise NoSecondDerivativeError(
            f"the network resists double backward{where}: {reason}"
        ) from error


def _marked(gradients: Sequence[Tensor]) -> bool:
    """Whether a function on the way to the gradients forbids to be differentiated again."""
    seen: set[Any] = set()
    open_nodes: list[Any] = [g.grad_fn for g in gradients]
    while open_nodes:
        node = open_nodes.pop()
        if node is None or node in seen:
            continue
        if node.name().endswith("::Error"):
            return True
        seen.add(node)
        open_nodes += [following for following, _ in node.next_functions]
    return False


def resisting_module(model: nn.Module, x: Tensor) -> str | None:
    """Name and class of the innermost module whose output cannot be differentiated twice.

    Every module is run again on its own recorded input, in the order in which they finish, so that
    a module comes after those inside it. ``None`` where each of them can.
    """
    for name, module, inputs in module_calls(model, x):
        if not _twice(module, as_leaves(inputs)):
            kind = type(module).__name__
            return f"module {name!r} ({kind})" if name else f"the forward of {kind}"
    return None


def _twice(module: nn.Module, inputs: tuple[Any, Any]) -> bool:
    args, kwargs = inputs
    leaves = [leaf for leaf in tree_leaves(inputs) if _differentiable(leaf)]
    if not leaves:
        return True
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            # In-place modules must not overwrite a leaf.
            args, kwargs = tree_map(lambda v: v * 1 if _differentiable(v) else v, (args, kwargs))
            outputs = [out for out in tree_leaves(module(*args, **kwargs)) if _floating(out)]
            if not outputs:
                return True
            if not all(out.requires_grad for out in outputs):
                return False
            value = torch.stack([F.softplus(out).sum() for out in outputs]).sum()
            gradients = torch.autograd.grad(
                value, leaves, create_graph=True, materialize_grads=True
            )
            if _marked(gradients):
                return False
            bent = sum(g.square().sum() for g in gradients if g.requires_grad)
            if isinstance(bent, Tensor):
                torch.autograd.grad(bent, leaves, materialize_grads=True)
    except RuntimeError:
        return False
    return True


def _floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _differentiable(value: Any) -> bool:
    return _floating(value) and value.requires_grad


def check_loss(model: nn.Module, x: Tensor, y: Tensor, chunk: int = 256) -> None:
    """Raise :class:`NotMeasuredError` where the mean cross-entropy is not finite.

    Raises:
        NotMeasuredError: with the number of examples on which it is not.
    """
    device, broken = device_of(model), 0
    with torch.no_grad():
        for images, labels in zip(torch.split(x, chunk), torch.split(y, chunk), strict=True):
            losses = F.cross_entropy(model(images.to(device)), labels.to(device), reduction="none")
            broken += int((~losses.isfinite()).sum())
    if broken:
        raise NotMeasuredError(f"the loss is not finite on {broken} of {len(x)} examples")
