"""Which modules a forward pass calls, with which inputs, and such a call made again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map
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


def called_again(
    module: nn.Module,
    inputs: Any,
    leaves: Sequence[Tensor],
    parameters: Mapping[str, Tensor] | None = None,
) -> list[Tensor]:
    """The floating-point outputs of a module that is called again on recorded inputs.

    Args:
        inputs: ``(args, kwargs)``, as :func:`module_calls` records them.
        leaves: in place of :func:`floating` of the inputs.
        parameters: in place of the module's own.
    """
    queue = iter(leaves)
    args, kwargs = tree_map(lambda v: next(queue) if is_floating(v) else v, inputs)
    if parameters:
        return floating(functional_call(module, dict(parameters), args, kwargs))
    return floating(module(*args, **kwargs))


def floating(tree: Any) -> list[Tensor]:
    """The floating-point tensors in nested containers, in order."""
    return [leaf for leaf in tree_leaves(tree) if is_floating(leaf)]


def is_floating(value: Any) -> bool:
    """Whether it is a floating-point tensor."""
    return isinstance(value, Tensor) and value.is_floating_point()


def module_label(name: str, kind: str) -> str:
    """A module in a message, by its name in the network and its class.

    >>> module_label("layer.0", "ReLU"), module_label("", "Net")
    ("module 'layer.0' (ReLU)", 'the forward of Net')
    """
    return f"module {name!r} ({kind})" if name else f"the forward of {kind}"


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
