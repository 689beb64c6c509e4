"""One network with many different weights, in the fastest form that computes the same."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.func import functional_call

from robaudit.engine import accelerate
from robaudit.engine.acceleration import CHANNELS_LAST
from robaudit.engine.logits import Forward
from robaudit.engine.precision import Asked, Precision
from robaudit.flatness.stacked import moved_to, refusal, stacked_logits
from robaudit.flatness.weights import Weights
from robaudit.types import ThreatModel


class Perturbed:
    """``f(x; w + nu)`` for many ``nu``, the model's own parameters untouched.

    Normalisation parameters do not move, so a batch norm is folded once: a layer with weight ``W``
    and bias ``c`` before it gets ``s W`` and ``s c + t`` with ``s`` and ``t`` fixed, and each
    perturbation costs a rescaling of the weights. Images and weights are in channels-last order.
    Each optimisation is used only if the engine finds that it leaves the unperturbed network's
    output the same.

    In ``bf16`` and ``tf32`` it is for searches: what they find is judged by the network as it
    stands (:meth:`judges`), on which a perturbation that the form does not follow shows
    (:class:`robaudit.flatness.losses.RobustLoss`).

    Args:
        weights: what is perturbed.
        shape: of one image, ``(c, h, w)``.
        precision: asked for the form, as in :func:`robaudit.engine.accelerate`.
        examples, threat: what the form is compared on, as there.
        fold: fold batch norms; not where these are among ``weights``.

    Attributes:
        precision: what the form has to be run in.
        used: names of the optimisations in use.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Weights,
        shape: Sequence[int],
        precision: Asked = "fp32",
        *,
        examples: Tensor | None = None,
        threat: ThreatModel | None = None,
        fold: bool = True,
    ) -> None:
        self._model, self._weights, self._shape = model, weights, shape
        self._affine: Mapping[str, tuple[Tensor, Tensor]] = {}
        self._forward: Forward = model
        self._own: dict[str, Tensor] = {}
        self._copy: nn.Module | None = None
        self._stacked = model  # several at once: without modules that vmap cannot run
        self.precision: Precision = "fp32"
        self.used: tuple[str, ...] = ()
        # A network that cannot be copied, or not be run on float32 noise, is run unchanged.
        with suppress(RuntimeError, TypeError):
            found = accelerate(model, shape, precision, examples=examples, threat=threat, fold=fold)
            if found.used:
                form = _with_tensors(found.forward, weights)
                # Without a wrapper it is the network itself, or its folded copy.
                own = copy.deepcopy(form) if form is found.forward else form
                if found.precision == "bf16":
                    self._stacked = copy.deepcopy(own)
                elif found.folded is not None:
                    self._stacked = found.folded.network
                self._forward = own if form is found.forward else found.forward
                self._copy = own
                self._own = dict([*own.named_parameters(), *own.named_buffers()])
                self._affine = {} if found.folded is None else found.folded.affine
                self.precision, self.used = found.precision, found.used
        self._last = CHANNELS_LAST in self.used
        on_cpu = next(iter(weights.values())).device.type == "cpu"  # hooks are not recorded
        if self._copy is not None and self._last and on_cpu:
            for module in self._copy.modules():
                if isinstance(module, nn.AdaptiveAvgPool2d):
                    module.register_forward_pre_hook(_gradient_last)

    def at(self, *nus: Mapping[str, Tensor]) -> Forward:
        """``x -> f(x; w + nu)``, valid until the next call; tensors not in ``nu`` are unchanged.

        For several ``nu`` it takes images ``(b, K, c, h, w)`` to logits ``(b, K, k)``. For one it
        is the same module each time, whose weights change in place.
        """
        return self.placed(*(self._moved(nu) for nu in nus))

    def placed(self, *places: Weights) -> Forward:
        """:meth:`at` weights instead of perturbations."""
        if len(places) > 1:
            return moved_to(self._stacked, [self._effective(place) for place in places])
        (moved,) = places
        if self._copy is None:
            return moved_to(self._model, [moved])
        with torch.no_grad():
            for name, value in self._effective(moved).items():
                self._own[name].copy_(value)
        return self._forward

    def judges(self, *nus: Mapping[str, Tensor]) -> tuple[Forward, ...]:
        """The network as it stands at each ``w + nu``; none where searches are in float32."""
        if self.precision == "fp32":
            return ()
        return tuple(moved_to(self._model, [self._moved(nu)]) for nu in nus)

    def judged_logits(self, moved: Weights, x: Tensor) -> Tensor:
        """:meth:`logits_of_all` by the network as it stands, one after the other."""
        rows = [
            functional_call(self._model, {name: w[k] for name, w in moved.items()}, (x[:, k],))
            for k in range(x.shape[1])
        ]
        return torch.stack(rows, 1)

    def _moved(self, nu: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: w + nu[name] if name in nu else w for name, w in self._weights.items()}

    def logits(self, moved: Weights, x: Tensor) -> Tensor:
        """``f(x; moved)``, differentiable in the weights and in the images."""
        if self._copy is None:
            found: Tensor = functional_call(self._model, moved, (x,))
            return found
        effective = {name: self._ordered(w) for name, w in self._effective(moved).items()}
        found = functional_call(self._copy, effective, (self._ordered(x),))
        return found.to(x.dtype)

    def logits_of_all(self, moved: Weights, x: Tensor) -> Tensor:
        """:meth:`logits` of ``K`` networks: ``(K, ...)`` each and ``(b, K, c, h, w)``."""
        if x.shape[1] == 1:
            alone = {name: weight.squeeze(0) for name, weight in moved.items()}
            return self.logits(alone, x.squeeze(1)).unsqueeze(1)
        return stacked_logits(self._stacked, self._effective(moved), x)

    def refusal(self) -> str:
        """Why several cannot run stacked; empty if they can."""
        return refusal(self._stacked, self._effective(self._weights), self._shape, self.precision)

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
        if self.precision == "bf16":
            found = {name: tensor.to(self._own[name].dtype) for name, tensor in found.items()}
        return found


def _with_tensors(form: Forward, names: Iterable[str]) -> nn.Module:
    """The network inside of its wrappers: the module that has tensors of these names."""
    assert isinstance(form, nn.Module)
    wanted = set(names)
    return next(
        module
        for module in form.modules()
        if wanted <= {name for name, _ in [*module.named_parameters(), *module.named_buffers()]}
    )


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
