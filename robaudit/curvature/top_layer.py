"""Closed-form trace of the Hessian of a training loss in the top layer's weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.curvature.chunk_sizes import evenly
from robaudit.curvature.losses import standard_error
from robaudit.engine import device_of, effective, frozen, kept_entries
from robaudit.engine.arguments import checked_features
from robaudit.engine.calls import observed
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.types import TrainingLoss

# The usual weight of the loss's second term; ALP has no established one.
PENALTIES: dict[TrainingLoss, float] = {"at": 0.0, "trades": 6.0, "alp": 1.0, "mart": 6.0}


@dataclass(frozen=True)
class TopLayerTrace:
    """The top layer's trace, its terms and its standard error.

    Attributes:
        value: the mean over examples.
        standard_error: over examples; ``nan`` for a single one.
        terms: the summands of ``value`` by term of the loss, penalty included.
        per_example: ``(n,)`` float64 on the CPU.
        layer: name of the top layer.
        objective: ``at``, ``trades``, ``alp`` or ``mart``.
        penalty: weight of the loss's second term.
    """

    value: float
    standard_error: float
    terms: dict[str, float]
    per_example: Tensor
    layer: str
    objective: TrainingLoss
    penalty: float

    __repr__ = brief


@checked_features
def top_layer_trh(
    model: nn.Module,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    objective: TrainingLoss = "at",
    *,
    penalty: float | None = None,
    chunk: int = 256,
) -> TopLayerTrace:
    """``Tr(d^2 L / dW^2)`` of a robust training loss in the last linear layer's weight ``W``.

    With penultimate features ``z``, ``z'`` and softmax ``p``, ``p'`` of clean and adversarial
    images, ``h = p - p^2``, ``s_j = sum p'^j`` and penalty ``c``, per example:

    - ``at``, cross-entropy at ``x'``: ``|z'|^2 1^T h'``;
    - ``trades``, cross-entropy at ``x`` and ``c KL(p || p')``:
      ``|z|^2 1^T h + c |z'|^2 1^T h'``;
    - ``alp``, cross-entropy at ``x'`` and ``c |p - p'|^2``: ``|z'|^2 1^T h' +
      2 c |z'|^2 (s_2 - 2 s_3 + s_2^2 - 2 sum_i (p_i - p'_i) p'_i (s_2 - p'_i))``;
    - ``mart``, cross-entropy at ``x'``, ``-log(1 - max_{i != y} p'_i)`` and
      ``c KL(p || p') (1 - p_y)``: ``|z'|^2 (2 1^T h' - 1^T (r - r^2) + c (1 - p_y) 1^T h')``,
      ``r`` the softmax at ``x'`` without its most probable wrong class.

    In every penalty the clean logits are held fixed. Each is the trace of the loss's true Hessian.
    The paper's appendix G has other expressions for ALP and MART: it takes
    ``p_k (1 - p_k) (delta_ik - p_i)`` for the second derivative of ``p_i`` in logit k, which is
    ``p_i ((delta_ik - p_k)^2 - p_k (1 - p_k))``, drops MART's factor ``1 - p_y``, and writes MART's
    cross-entropy at ``x``; MART has it at ``x'``.

    Args:
        model: images to logits ``(n, k)``; it is left unchanged.
        x: clean images ``(n, c, h, w)``.
        x_adv: their adversarial examples, held fixed.
        y: labels ``(n,)``.
        objective: ``at``, ``trades``, ``alp`` or ``mart``.
        penalty: ``c``; by default 6 for TRADES and MART, 1 for ALP.
        chunk: images per forward pass.

    Returns:
        The trace with standard error and terms.

    Raises:
        UsageError: no such objective, or a penalty that is negative or not finite.
        NotMeasuredError: the logits are not finite, or not the output of a linear layer, or that
            layer is pruned.

    Source: Wang et al., "Improving robust generalization by direct PAC-Bayesian bound
    minimization", CVPR 2023, Propositions 1-2 and appendix G; the losses: Zhang et al. 2019
    (TRADES), Kannan et al. 2018 (ALP), Wang et al. 2020 (MART).

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> x, y = torch.rand(5, 1, 2, 2), torch.zeros(5).long()
    >>> top_layer_trh(net, x, x, y, "trades", penalty=1.0).terms.keys()
    dict_keys(['clean cross-entropy', 'divergence'])
    """
    penalty = PENALTIES[objective] if penalty is None else penalty
    if not 0 <= penalty < float("inf"):
        raise UsageError(f"the penalty must be a finite number of at least zero, not {penalty}")
    parts: dict[str, list[Tensor]] = {}
    model = effective(model, x)
    pruned = kept_entries(model)
    n = len(x)
    if n == 1:  # networks are not run on a single image; the copy is left out of the result
        x, x_adv, y = (torch.cat([rows, rows]) for rows in (x, x_adv, y))
    with frozen(model), torch.no_grad():
        device = device_of(model)
        for here in evenly(len(x), chunk):
            layer, z, logits = top_layer_pass(model, x[here].to(device))
            if f"{layer}.weight".lstrip(".") in pruned:
                raise NotMeasuredError(f"the top layer {layer} has pruned entries, each its own")
            _, z_adv, logits_adv = top_layer_pass(model, x_adv[here].to(device))
            found = trace_terms(
                objective, penalty, z, z_adv, logits, logits_adv, y[here].to(device)
            )
            for name, values in found.items():
                parts.setdefault(name, []).append(values.cpu())
    terms = {name: torch.cat(values)[:n] for name, values in parts.items()}
    per_example = torch.stack(list(terms.values())).sum(0)
    return TopLayerTrace(
        value=float(per_example.mean()),
        standard_error=standard_error(per_example),
        terms={name: float(values.mean()) for name, values in terms.items()},
        per_example=per_example,
        layer=layer,
        objective=objective,
        penalty=penalty,
    )


def trace_terms(
    objective: TrainingLoss,
    penalty: float,
    z: Tensor,
    z_adv: Tensor,
    logits: Tensor,
    logits_adv: Tensor,
    y: Tensor,
) -> dict[str, Tensor]:
    """Terms ``(n,)`` that sum to each example's trace of the objective in the top layer's weight.

    Args:
        z, z_adv: inputs ``(n, d)`` of the layer, clean and adversarial.
        logits, logits_adv: its outputs ``(n, k)``.
    """
    clean, squared = z.square().sum(1), z_adv.square().sum(1)
    p, q = logits.softmax(1), logits_adv.softmax(1)
    cross_entropy = squared * _gini(q)
    if objective == "at":
        return {"cross-entropy": cross_entropy}
    if objective == "trades":
        return {
            "clean cross-entropy": clean * _gini(p),
            "divergence": penalty * cross_entropy,
        }
    if objective == "alp":
        s2, s3 = q.square().sum(1), q.pow(3).sum(1)
        bent = ((p - q) * q * (s2[:, None] - q)).sum(1)
        pairing = 2 * squared * (s2 - 2 * s3 + s2.square() - 2 * bent)
        return {"cross-entropy": cross_entropy, "pairing": penalty * pairing}
    own = y[:, None]
    rival = logits_adv.scatter(1, own, -torch.inf).argmax(1, keepdim=True)
    r = logits_adv.scatter(1, rival, -torch.inf).softmax(1)
    return {
        "cross-entropy": cross_entropy,
        "margin": cross_entropy - squared * _gini(r),
        "divergence": penalty * (1 - p.gather(1, own)[:, 0]) * cross_entropy,
    }


def _gini(p: Tensor) -> Tensor:
    return (p * (1 - p)).sum(1)


def top_layer_pass(model: nn.Module, x: Tensor) -> tuple[str, Tensor, Tensor]:
    """Name of the linear layer whose output the logits are, its input, and the logits."""
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    with observed(linear) as calls:
        logits = model(x)
    if not bool(logits.isfinite().all()):
        raise NotMeasuredError("the logits are not finite on some images")
    rows = len(logits)  # a single image enters a network twice
    for name, _, inputs, output in reversed(calls):
        own = output[:rows].to(logits.dtype)
        if own.shape == logits.shape and torch.equal(own, logits):
            return name, inputs[0][:rows].double(), logits.double()
    raise NotMeasuredError("the logits are not the output of a linear layer: no top layer")
