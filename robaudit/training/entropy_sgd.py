"""Entropy-SGD: descent towards the centre of a valley, found by Langevin dynamics."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

# Of the running mean of the Langevin iterates, the authors' value.
_DECAY = 0.75


class EntropySGD(torch.optim.Optimizer):
    """A step towards the mean of Langevin iterates around the weights, every ``langevin`` batches.

    From ``x' = mu = x``, each call of :meth:`step` is one iteration with the gradient ``g`` of a
    batch at ``x'``, which the parameters hold meanwhile::

        x' <- x' - s (n(g + wd x') + gamma (x' - x)) + sqrt(s) noise N(0, I)
        mu <- 0.75 mu + 0.25 x'

    After ``langevin`` of them ``x <- x - lr n(x - mu)``, and the parameters hold ``x`` again.
    ``n`` is Nesterov's momentum, which in the inner loop begins anew each time, and ``gamma = scope
    (1 + scoping)^t`` in the ``t``-th outer step, from 0. An epoch that ends in between ends with
    :meth:`settle`, the outer step from as many iterations as there are.

    Args:
        params: the parameters.
        lr: of the outer steps; 1 without momentum moves ``x`` onto the mean. The paper's ``gamma``
            in that step is part of the rate, as in the authors' code.
        langevin: ``L`` of the paper, 20.
        scope: ``gamma_0``, how much the iterates are drawn to ``x``; the authors' code has 1e-4
            for MNIST and 0.03 for CIFAR-10.
        scoping: ``gamma_1``.
        noise: ``epsilon``, the thermal noise; the authors' code has ``sqrt(2)`` times as much.
        step_size: ``s``, of the Langevin iterations.
        momentum: of both loops.
        weight_decay: ``wd``, the l2 penalty's in the inner loop.
        generator: of the noise, on the device of the parameters; it is no part of the state.

    Source: P. Chaudhari et al., "Entropy-SGD: Biasing Gradient Descent into Wide Valleys", ICLR
    2017, Algorithm 1; momenta and the mean's decay as in the authors' public code.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        *,
        langevin: int = 20,
        scope: float = 1e-4,
        scoping: float = 1e-3,
        noise: float = 1e-4,
        step_size: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        how = {
            "lr": lr,
            "langevin": langevin,
            "scope": scope,
            "scoping": scoping,
            "noise": noise,
            "step_size": step_size,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "taken": 0,
            "outer": 0,
        }
        super().__init__(params, how)
        self._generator = generator

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One Langevin iteration; with the last one of a round the outer step."""
        for group in self.param_groups:
            gamma = group["scope"] * (1 + group["scoping"]) ** group["outer"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if "centre" not in state:
                    state["centre"], state["mean"] = p.detach().clone(), p.detach().clone()
                    state["inner"] = torch.zeros_like(p)
                gradient = p.grad.add(p, alpha=group["weight_decay"])
                inner = state["inner"].mul_(group["momentum"]).add_(gradient)
                gradient = gradient.add(inner, alpha=group["momentum"])
                gradient.add_(p - state["centre"], alpha=gamma)
                p.sub_(gradient, alpha=group["step_size"])
                drawn = torch.randn(
                    p.shape, generator=self._generator, device=p.device, dtype=p.dtype
                )
                p.add_(drawn, alpha=math.sqrt(group["step_size"]) * group["noise"])
                state["mean"].lerp_(p, 1 - _DECAY)
            group["taken"] += 1
        if self.param_groups[0]["taken"] >= self.param_groups[0]["langevin"]:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """The outer step, where there were Langevin iterations since the last."""
        for group in self.param_groups:
            if not group["taken"]:
                continue
            for p in group["params"]:
                state = self.state[p]
                if "centre" not in state:
                    continue
                centre, mean = state.pop("centre"), state.pop("mean")
                del state["inner"]
                gap = centre - mean
                outer = state.setdefault("outer", torch.zeros_like(p))
                outer.mul_(group["momentum"]).add_(gap)
                gap = gap.add(outer, alpha=group["momentum"])
                p.copy_(centre.sub_(gap, alpha=group["lr"]))
            group["taken"], group["outer"] = 0, group["outer"] + 1
