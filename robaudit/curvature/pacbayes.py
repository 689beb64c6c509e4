"""The terms of two PAC-Bayesian bounds on the robust loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.curvature.losses import cross_entropies, standard_error
from robaudit.curvature.wci import WeightCurvature, wci
from robaudit.engine.arguments import checked_features
from robaudit.errors import UsageError
from robaudit.types import Estimator, Progress


@dataclass(frozen=True)
class Term:
    """A number with its standard error over examples, zero where it has none."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class PacBayes:
    """Both bounds, term by term, up to the constants that :func:`pac_bayes` leaves out.

    Attributes:
        loss: ``R_hat``, the mean cross-entropy.
        weights: ``||w||^2 / (2 beta s0^2)``.
        curvature: ``(s0^2 / 2) Tr(H)``.
        bound: their sum; its standard error is that of the sum per example.
        index: ``sqrt(2 / lambda) WCI``.
        deviations: ``sigma_k``, the layers' standard deviations for which ``index`` is attained.
        beta, s0, lambda_: the constants.
        wci: the index, with norms and traces.
    """

    loss: Term
    weights: Term
    curvature: Term
    bound: Term
    index: Term
    deviations: dict[str, float]
    beta: float
    s0: float
    lambda_: float
    wci: WeightCurvature

    __repr__ = brief


@checked_features
def pac_bayes(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    beta: float | None = None,
    s0: float | None = None,
    lambda_: float | None = None,
    estimator: Estimator = "auto",
    probes: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    progress: Progress | None = None,
    chunk: int = 256,
) -> PacBayes:
    """Terms of two PAC-Bayesian bounds on the robust loss.

    The TrH paper's ``R_hat + ||w||^2 / (2 beta s0^2) + (s0^2 / 2) Tr(H)`` (Theorem 3) and the WCI
    paper's ``sqrt(2 / lambda) WCI`` (Theorem 2.5).

    They are bounds only together with what is left out: the first up to ``C(tau, beta, m)`` and
    ``O(s0^4)``, the second, on KL divergence and classifier variability alone, up to constants.
    They compare networks measured with the same constants and are not certificates. Both theorems
    concern the training set: loss and trace on other images bound nothing. Unlike WCI, the first
    bound and WCI's own bound change when layers are rescaled without changing the function.

    ``w`` and ``H`` are those of convolution and linear weights, as in WCI. The trace is that of the
    Hessian; where WCI uses Gauss-Newton traces, so does this, and ``wci.note`` says so.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: adversarial images ``(n, c, h, w)`` of the training set, held fixed.
        y: labels ``(n,)``.
        beta: in the papers proportional to the size of the training set; by default n.
        s0: standard deviation of the prior; by default ``d^-1/2`` for images of ``d`` numbers, as
            in the paper.
        lambda_: constant of Theorem 2.5; by default n.
        estimator, probes, seed, index: as in :func:`robaudit.curvature.layer_traces`.
        progress: called with the number of examples done and of all.
        chunk: images per forward pass of the loss.

    Returns:
        Both bounds, term by term.

    Raises:
        UsageError: a constant that is not a positive number.
        NotMeasuredError: the loss is not finite, or as in :func:`robaudit.curvature.wci`.

    Source: Wang et al., CVPR 2023, Theorem 3; Xu & Zhang, arXiv 2410.07719v1, Theorem 2.5, with
    ``sigma_k^2 = ||W_k||_F / sqrt(2 lambda Tr(H_k))`` from its proof.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> found = pac_bayes(net, torch.rand(5, 1, 2, 2), torch.zeros(5).long())
    >>> found.beta, found.s0
    (5.0, 0.5)
    """
    check_constants(beta, s0, lambda_)
    losses = cross_entropies(model, x, y, chunk)
    measured = wci(
        model, x, y, estimator=estimator, probes=probes, seed=seed, index=index, progress=progress
    )
    return bound_terms(losses, measured, x[0].numel(), beta, s0, lambda_)


def check_constants(beta: float | None, s0: float | None, lambda_: float | None) -> None:
    """Raise if a constant of :func:`pac_bayes` is given and is not a positive finite number.

    Args:
        beta: as in :func:`pac_bayes`.
        s0: likewise.
        lambda_: likewise.

    Raises:
        UsageError: one of them is not.

    >>> check_constants(beta=100.0, s0=None, lambda_=None)
    """
    for name, constant in {"beta": beta, "s0": s0, "lambda": lambda_}.items():
        if constant is not None and not 0 < constant < math.inf:
            raise UsageError(f"{name} must be a positive number, not {constant:g}")


def bound_terms(
    losses: Tensor,
    measured: WeightCurvature,
    d: int,
    beta: float | None = None,
    s0: float | None = None,
    lambda_: float | None = None,
) -> PacBayes:
    """:func:`pac_bayes` from losses and an index that are already there.

    Args:
        losses: ``(n,)`` cross-entropy of the examples that ``measured`` was computed on.
        measured: their Weight-Curvature Index.
        d: numbers per image.
        beta: as in :func:`pac_bayes`.
        s0: likewise.
        lambda_: likewise.

    Returns:
        Both bounds, term by term.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.zeros(5).long()
    >>> bound_terms(torch.ones(5), wci(net, x, y), d=4).loss.value
    1.0
    """
    n, losses = len(losses), losses.double()
    beta = float(n) if beta is None else beta
    s0 = d**-0.5 if s0 is None else s0
    lambda_ = float(n) if lambda_ is None else lambda_
    bent = s0**2 / 2 * measured.traces.per_example.sum(1)
    weights = math.fsum(row.frobenius**2 for row in measured.layers) / (2 * beta * s0**2)
    factor = math.sqrt(2 / lambda_)
    rounding = s0**2 / 2 * measured.traces.total_rounding
    together = _mean(losses + bent, rounding)
    return PacBayes(
        loss=_mean(losses),
        weights=Term(weights, 0.0),
        curvature=_mean(bent, rounding),
        bound=Term(weights + together.value, together.standard_error),
        index=Term(factor * measured.value, factor * measured.standard_error),
        deviations={
            row.name: math.sqrt(row.frobenius / math.sqrt(2 * lambda_ * row.trace))
            if row.trace > 0
            else math.inf
            for row in measured.layers
        },
        beta=beta,
        s0=s0,
        lambda_=lambda_,
        wci=measured,
    )


def _mean(values: Tensor, rounding: float = 0.0) -> Term:
    return Term(float(values.mean()), math.hypot(standard_error(values), rounding))
