"""Which modules a pass runs, and on what: to run each again alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


def module_calls(model: nn.Module, x: Tensor) -> list[tuple[str, nn.Module, Any]]:
    """Every module that ran, in the order of finishing, with copies of its ``(args, kwargs)``."""
    calls: list[tuple[str, nn.Module, Any]] = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
            calls.append((name, module, tree_map(_copy, (args, kwargs))))

        return keep

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for handle in handles:
            handle.remove()
    return calls


def as_leaves(inputs: Any) -> Any:
    """The recorded inputs, those of floating point as leaves that want gradients."""
    return tree_map(
        lambda v: v.requires_grad_() if isinstance(v, Tensor) and v.is_floating_point() else v,
        inputs,
    )


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
