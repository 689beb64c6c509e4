"""Trace estimates of all measured weights on one chunk of examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.curvature.exact import Factor, gauss_newton_traces
from robaudit.curvature.layers import Record
from robaudit.curvature.linear_pieces import linear_pieces
from robaudit.curvature.output_probes import hessian_trace_samples
from robaudit.curvature.per_example import hessian_samples, kept_numbers, squared_gradients
from robaudit.curvature.softmax import logit_curvature_factor, mixed_columns
from robaudit.curvature.sweep import Sweep
from robaudit.curvature.targets import Targets
from robaudit.engine.precision import Precision
from robaudit.errors import UsageError


def check_memory(model: nn.Module, targets: Targets, image: Tensor, memory: int | None) -> None:
    """Raise if one image of the weights measured alone needs more than ``memory`` bytes.

    Raises:
        UsageError: it does.
    """
    if memory is None or not targets.alone:
        return
    needed = kept_numbers(model, targets.alone, image) * image.element_size()
    if needed > memory:
        raise UsageError(
            f"one image needs about {needed} bytes of memory; {memory} were granted",
            "Grant more memory, or name fewer layers.",
        )


def logit_factors(
    chosen: Literal["exact", "gauss-newton"], probes: int, seed: int
) -> Callable[[Tensor], Factor]:
    """The factor of the logits' curvature for examples with given indices."""
    if chosen == "exact":
        return lambda places: logit_curvature_factor
    return lambda places: lambda logits: mixed_columns(logits, places, probes, seed)


def gauss_newton_rows(
    model: nn.Module,
    targets: Targets,
    x: Tensor,
    factors: Callable[[Tensor], Factor],
    index: Tensor,
    together: int,
    precision: Precision,
    beside: bool,
) -> tuple[Tensor, bool]:
    """Gauss-Newton traces ``(n, recorded + alone)``, float64.

    Args:
        factors: positions of examples to a factor of the logits' curvature.
        index: ``(n,)`` the examples' positions in their data set.
        together: columns of the factor per backward sweep.
        precision: of the backward passes; in ``fp32`` they are in the network's own type.
        beside: other threads run, see :func:`robaudit.curvature.exact.gauss_newton_traces`.

    Returns:
        The traces, and whether the graph is known to be piecewise linear.
    """
    parts, linear = [], not targets.alone

    def seen(sweep: Sweep, _: Record) -> None:
        nonlocal linear
        linear = linear and linear_pieces(sweep.steps())

    if targets.recorded:
        found = gauss_newton_traces(
            model, targets.recorded, x, factors(index), together, precision, seen, beside=beside
        )
        parts.append(found)
    if targets.alone:
        rows = [
            squared_gradients(model, targets.alone, image, factors(place), targets.kept)
            for image, place in zip(torch.split(x, 1), torch.split(index, 1), strict=True)
        ]
        parts.append(torch.stack(rows))
    return torch.cat(parts, 1), linear


def hessian_rows(
    model: nn.Module,
    targets: Targets,
    x: Tensor,
    y: Tensor,
    index: Tensor,
    probes: int,
    seed: int,
) -> Tensor:
    """The mean of ``probes`` draws of Hessian traces, ``(n, recorded + alone)`` float64."""
    draws = []
    for probe in range(probes):
        parts = []
        if targets.recorded:
            parts.append(hessian_trace_samples(model, targets.recorded, x, y, index, probe, seed))
        if targets.alone:
            rows = [
                hessian_samples(
                    model, targets.alone, image, label, example, probe, seed, targets.kept
                )
                for image, label, example in zip(
                    torch.split(x, 1), torch.split(y, 1), index.tolist(), strict=True
                )
            ]
            parts.append(torch.stack(rows))
        draws.append(torch.cat(parts, 1))
    return torch.stack(draws).mean(0)
