"""TRADES: clean cross-entropy plus the divergence of clean and perturbed predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robaudit.engine import frozen
from robaudit.training.inner import maximise

if TYPE_CHECKING:
    from robaudit.types import Images, Labels, Logits, ThreatModel


def kl_divergence(clean: Logits, moved: Logits) -> Tensor:
    """``KL(p || q) = sum_c p_c (log p_c - log q_c)`` summed over examples, a scalar.

    ``p = softmax(clean)``, ``q = softmax(moved)``; logits are ``(n, k)``, the unit is nats.
    """
    log_p, log_q = clean.log_softmax(dim=1), moved.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum()


def trades_loss(
    model: nn.Module,
    x: Images,
    y: Labels,
    generator: torch.Generator | None = None,
    *,
    threat: ThreatModel,
    beta: float = 6.0,
    steps: int = 10,
    step_size: float | None = None,
) -> Tensor:
    """``E[CE(f(x), y) + beta KL(f(x) || f(x'))]`` with ``x'`` from PGD on the divergence, a scalar.

    ``x'`` is made in eval mode, as in :func:`robaudit.training.at.at_loss`, from a start that is
    uniform in the ball (at ``x' = x`` the divergence has no gradient). Both forward passes of the
    loss run in the mode the model came in, and gradients flow through both.

    Args:
        model: images in ``[0, 1]`` to logits.
        x: clean images ``(n, c, h, w)``.
        y: labels ``(n,)``.
        generator: source of the random start.
        threat: norm and radius of the perturbations.
        beta: weight of the divergence (``1 / lambda`` in the paper).
        steps: PGD steps.
        step_size: of one step; a quarter of the radius if not given.

    Source: H. Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    ICML 2019, Eq. 5 and Algorithm 1.
    """
    with frozen(model):
        with torch.no_grad():
            target = model(x)
        moved = maximise(
            lambda z: kl_divergence(target, model(z)),
            x,
            threat,
            steps=steps,
            step_size=step_size,
            generator=generator,
        )
    clean = model(x)
    return F.cross_entropy(clean, y) + beta * kl_divergence(clean, model(moved)) / len(x)
