"""Batch norm folded into the layer before it."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

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
    sqrt(v + e)``, and bias ``s (c - m) + b``. Which norm follows which layer is observed in one
    forward pass. Whether a layer's output is also used elsewhere is not, so the result has to be
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
    """Names of layers and of the norms whose input is their unchanged output."""
    layers, norms = _layers(model), _norms(model)
    outputs: list[tuple[str, Tensor, int]] = []
    inputs: list[tuple[str, Tensor, int]] = []
    handles = [
        module.register_forward_hook(
            lambda _, __, out, name=name: outputs.append((name, out, out._version))
        )
        for name, module in layers.items()
    ]
    handles += [
        module.register_forward_pre_hook(
            lambda _, args, name=name: inputs.append((name, args[0], args[0]._version))
        )
        for name, module in norms.items()
    ]
    with temporary(*handles), torch.no_grad():
        model(images)
    calls = Counter(name for name, _, _ in [*outputs, *inputs])
    sources = {(id(out), version): name for name, out, version in outputs}
    found = [(sources.get((id(given), version)), name) for name, given, version in inputs]
    once = [(layer, norm) for layer, norm in found if layer and calls[layer] == calls[norm] == 1]
    uses = Counter(layer for layer, _ in once)
    return [(layer, norm) for layer, norm in once if uses[layer] == 1]


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
