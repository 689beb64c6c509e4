"""Batch norm folded into the layer before it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from robaudit.engine.calls import temporary
from robaudit.engine.freezing import frozen

FoldableLayer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_FORWARDS = (
    nn.Linear.forward,
    nn.Conv1d.forward,
    nn.Conv2d.forward,
    nn.Conv3d.forward,
)


@dataclass(frozen=True)
class Folded:
    """A network with batch norms folded into the layers before them.

    Attributes:
        network: the copy.
        affine: scale ``(o,)`` and shift ``(o,)`` by a folded layer's name: where the network's
            layer has weight ``W`` and bias ``c``, the copy's has ``s W`` and ``s c + t``.
    """

    network: nn.Module
    affine: Mapping[str, tuple[Tensor, Tensor]]


def fold_batch_norm(model: nn.Module, images: Tensor) -> Folded | None:
    """A copy in which batch norms that directly follow a layer are folded into that layer.

    With running mean ``m`` and variance ``v``, scale ``g`` and shift ``b``, evaluation mode
    computes ``g (W x + c - m) / sqrt(v + e) + b``: a layer with weight ``s W``, ``s = g /
    sqrt(v + e)``, and bias ``s (c - m) + b``. Which norm follows which layer, and that nothing
    else uses the layer's output (in pre-activation networks a residual sum may), is observed in one
    forward pass; what the network would do with other images is not, so the result has to be
    compared with the original.

    Args:
        model: the network; it is left unchanged.
        images: a few images ``(n, c, h, w)``.

    Returns:
        the copy, or ``None`` where there is nothing to fold or the network cannot be copied.
    """
    with frozen(model):
        pairs = _pairs(model, images)
        if not pairs:
            return None
        try:
            folded = copy.deepcopy(model)
        except (RuntimeError, TypeError):
            return None
    affine = {}
    for layer_name, norm_name in pairs:
        layer, norm = folded.get_submodule(layer_name), folded.get_submodule(norm_name)
        assert isinstance(layer, FoldableLayer)
        assert isinstance(norm, BatchNorm)
        affine[layer_name] = _fold(layer, norm)
        parent, _, name = norm_name.rpartition(".")
        setattr(folded.get_submodule(parent), name, nn.Identity())
    return Folded(folded.eval().requires_grad_(False), affine)


def _pairs(model: nn.Module, images: Tensor) -> list[tuple[str, str]]:
    """Names of layers and of the norms that alone use their unchanged output."""
    layers, norms = _layers(model), _norms(model)
    outputs: list[tuple[str, Tensor, int]] = []
    inputs: list[tuple[str, Tensor, int]] = []
    uses = _Uses()

    def gives(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, out: Tensor) -> None:
            outputs.append((name, out, out._version))
            uses.of.setdefault(_memory(out), 0)

        return hook

    def takes(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs.append((name, args[0], args[0]._version))
            uses.counted = False

        return hook

    def gave(_: nn.Module, __: Any, ___: Any) -> None:
        uses.counted = True

    handles = [layer.register_forward_hook(gives(name)) for name, layer in layers.items()]
    handles += [norm.register_forward_pre_hook(takes(name)) for name, norm in norms.items()]
    handles += [norm.register_forward_hook(gave) for norm in norms.values()]
    with temporary(*handles), torch.no_grad(), uses:
        model(images)
    # The outputs are all kept until here, so that no two share their memory.
    shared = {name for name, out, _ in outputs if uses.of[_memory(out)]}
    calls = Counter(name for name, _, _ in [*outputs, *inputs])
    sources = {(id(out), version): name for name, out, version in outputs}
    found = [(sources.get((id(given), version)), name) for name, given, version in inputs]
    once = [(layer, norm) for layer, norm in found if layer and calls[layer] == calls[norm] == 1]
    followers = Counter(layer for layer, _ in once)
    alone = {layer for layer, norms in followers.items() if norms == 1} - shared
    return [(layer, norm) for layer, norm in once if layer in alone]


def _memory(tensor: Tensor) -> int:
    """Where its memory starts; 0 for a tensor that has none of the usual kind."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):
        return 0


class _Uses(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations outside of norms that take a tensor, by where its memory starts.

    Attributes:
        of: the counts, of the tensors entered here.
        counted: whether operations are counted now.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.of: dict[int, int] = {}
        self.counted = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for value in tree_leaves((args, kwargs or {})) if self.counted else ():
            if isinstance(value, Tensor):
                memory = _memory(value)
                if memory in self.of:
                    self.of[memory] += 1
        return func(*args, **(kwargs or {}))


def _layers(model: nn.Module) -> dict[str, FoldableLayer]:
    found = {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, FoldableLayer)
        and type(module).forward in _FORWARDS
        and not parametrize.is_parametrized(module)
        and not module._forward_hooks
        and not module._forward_pre_hooks
    }
    owners = Counter(id(module.weight) for module in found.values())
    return {name: module for name, module in found.items() if owners[id(module.weight)] == 1}


def _norms(model: nn.Module) -> dict[str, BatchNorm]:
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
        and module.running_mean is not None
        and not module._forward_hooks
    }


def _fold(layer: FoldableLayer, norm: BatchNorm) -> tuple[Tensor, Tensor]:
    """Fold the norm into the layer; returns its scale and shift."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    kind = layer.weight.dtype
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    shift = shift if norm.bias is None else shift + norm.bias.detach().double()
    weight = layer.weight.detach().double() * scale.reshape(-1, *[1] * (layer.weight.dim() - 1))
    bias = 0 if layer.bias is None else layer.bias.detach().double() * scale
    layer.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    layer.bias = nn.Parameter((bias + shift).to(kind), requires_grad=False)
    return scale.to(kind), shift.to(kind)
