"""One network with many different weights, in the fastest form that computes the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robaudit.engine import accelerate
from robaudit.engine.acceleration import CHANNELS_LAST, ImagesLast
from robaudit.engine.logits import Forward
from robaudit.flatness.stacked import moved_to, refusal, stacked_logits
from robaudit.flatness.weights import Weights


class Perturbed:
    """``f(x; w + nu)`` for many ``nu``, the model's own parameters untouched.

    Normalisation parameters do not move, so a batch norm is folded once: a layer with weight ``W``
    and bias ``c`` before it gets ``s W`` and ``s c + t`` with ``s`` and ``t`` fixed, and each
    perturbation costs a rescaling of the weights. Images and weights are in channels-last order.
    Each optimisation is used only if the engine finds that it leaves the network's output the same.

    Attributes:
        used: names of the optimisations in use.
    """

    def __init__(self, model: nn.Module, weights: Weights, shape: Sequence[int]) -> None:
        self._model, self._weights, self._shape = model, weights, shape
        self._affine: Mapping[str, tuple[Tensor, Tensor]] = {}
        self._copy: nn.Module | None = None
        self._stacked = model  # several at once: without modules that vmap cannot run
        self.used: tuple[str, ...] = ()
        # A network that cannot be copied, or not be run on float32 noise, is run unchanged.
        with suppress(RuntimeError, TypeError):
            found = accelerate(model, shape, "fp32")
            if found.folded is not None:
                self._stacked, self._affine = found.folded.network, found.folded.affine
                self._copy = copy.deepcopy(self._stacked)
            elif found.used:
                self._copy = copy.deepcopy(model).eval().requires_grad_(False)
            self.used = found.used
        self._last = CHANNELS_LAST in self.used
        if self._copy is not None and self._last:
            self._copy = self._copy.to(memory_format=torch.channels_last)
            for module in self._copy.modules():
                if isinstance(module, nn.AdaptiveAvgPool2d):
                    module.register_forward_pre_hook(_gradient_last)

    def at(self, *nus: Mapping[str, Tensor]) -> Forward:
        """``x -> f(x; w + nu)``, valid until the next call; tensors not in ``nu`` are unchanged.

        For several ``nu`` it takes images ``(b, K, c, h, w)`` to logits ``(b, K, k)``.
        """
        moves = [
            {name: w + nu[name] if name in nu else w for name, w in self._weights.items()}
            for nu in nus
        ]
        if len(nus) > 1:
            return moved_to(self._stacked, [self._effective(moved) for moved in moves])
        (moved,) = moves
        if self._copy is None:
            return moved_to(self._model, [moved])
        own = dict(self._copy.named_parameters())
        with torch.no_grad():
            for name, value in self._effective(moved).items():
                own[name].copy_(value)
        return ImagesLast(self._copy) if self._last else self._copy

    def logits(self, moved: Weights, x: Tensor) -> Tensor:
        """``f(x; moved)``, differentiable in the weights and in the images."""
        if self._copy is None:
            found: Tensor = functional_call(self._model, moved, (x,))
            return found
        effective = {name: self._ordered(w) for name, w in self._effective(moved).items()}
        found = functional_call(self._copy, effective, (self._ordered(x),))
        return found

    def logits_of_all(self, moved: Weights, x: Tensor) -> Tensor:
        """:meth:`logits` of ``K`` networks: ``(K, ...)`` each and ``(b, K, c, h, w)``."""
        if x.shape[1] == 1:
            alone = {name: weight.squeeze(0) for name, weight in moved.items()}
            return self.logits(alone, x.squeeze(1)).unsqueeze(1)
        return stacked_logits(self._stacked, self._effective(moved), x)

    def refusal(self) -> str:
        """Why several cannot run stacked; empty if they can."""
        return refusal(self._stacked, self._effective(self._weights), self._shape)

    def _ordered(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=torch.channels_last) if self._last and x.dim() == 4 else x

    def _effective(self, moved: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The folded network's parameters, from those of the network, or of several."""
        found = dict(moved)
        for layer, (scale, shift) in self._affine.items():
            weight, bias = (f"{layer}.{part}".lstrip(".") for part in ("weight", "bias"))
            if weight in moved:
                wide = scale.reshape(-1, *[1] * (self._weights[weight].dim() - 1))
                found[weight] = moved[weight] * wide
            if bias in moved:
                found[bias] = moved[bias] * scale + shift
        return found


class _GradientLast(torch.autograd.Function):
    """The identity, with the gradient in channels-last order."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_: object, *gradients: Tensor) -> Tensor:
        return gradients[0].contiguous(memory_format=torch.channels_last)


def _gradient_last(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # Pooling returns its gradient in the other order, and every layer before it would convert it.
    found: Tensor = _GradientLast.apply(inputs[0])
    return (found, *inputs[1:])
