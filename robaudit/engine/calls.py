"""Which modules a forward pass calls, and with which inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle


class ModuleCall(NamedTuple):
    """One call of a module; ``inputs`` are its positional arguments."""

    name: str
    module: nn.Module
    inputs: tuple[Any, ...]
    output: Any


@contextmanager
def temporary(*handles: RemovableHandle) -> Iterator[None]:
    """Remove the hooks on exit."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def observed(modules: Mapping[str, nn.Module]) -> Iterator[list[ModuleCall]]:
    """The calls of the modules, in the order in which they finish."""
    calls: list[ModuleCall] = []

    def hook(name: str) -> Any:
        return lambda module, inputs, output: calls.append(ModuleCall(name, module, inputs, output))

    with temporary(*(m.register_forward_hook(hook(name)) for name, m in modules.items())):
        yield calls


def module_calls(model: nn.Module, x: Tensor) -> list[tuple[str, nn.Module, Any]]:
    """Every module that runs, in the order in which they finish, with copies of ``(args, kwargs)``.

    A module comes after those inside it.
    """
    calls: list[tuple[str, nn.Module, Any]] = []

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, kwargs: Any, _: Any) -> None:
            calls.append((name, module, tree_map(_copy, (args, kwargs))))

        return keep

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
    ]
    with temporary(*handles), torch.no_grad():
        model(x)
    return calls


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
