"""Certified lower bounds of a classifier's margins over a threat model."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.brief import brief
from robaudit.certified.graph import graph_of
from robaudit.certified.margins import Certifier
from robaudit.certified.nodes import Graph, ancestors
from robaudit.certified.regions import Region
from robaudit.certified.single import Single
from robaudit.engine import Runner, device_of, devices_of, frozen
from robaudit.engine.arguments import checked
from robaudit.engine.several import over_devices
from robaudit.errors import NotCertifiableError, UsageError
from robaudit.types import Cache, Progress, ThreatModel, no_cache

Method = Literal["crown", "alpha", "branch"]

# Products of one image, by type of device, beyond which hidden values have interval bounds only (on
# a CPU about ten seconds); and beyond which nothing is bounded.
_LINEAR, _LARGEST = {"cpu": 1e11, "cuda": 1e13}, 1e15


@dataclass(frozen=True)
class Certificates:
    """Certified lower bounds of ``n`` examples, on the CPU.

    Attributes:
        lower: ``(n,)`` float64, of the margin ``z_y - max_{j != y} z_j`` over the threat model's
            ball cut with the box; ``-inf`` where it was not tried. CROWN's is as
            large as it can show; the other methods stop once a margin is positive, often at 1e-4.
        certified: ``(n,)`` bool, ``lower > 0``.
        method: which method certified each example, ``""`` for those that are not certified.
        splits: ``(n,)`` int64, branches that were split.
        notes: in words, what was not done.
    """

    lower: Tensor
    certified: Tensor
    method: tuple[str, ...]
    splits: Tensor
    notes: tuple[str, ...] = ()

    __repr__ = brief


@checked
def certify(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: ThreatModel,
    *,
    method: Method = "branch",
    budget: float = 30.0,
    splits: int | None = None,
    tried: Tensor | None = None,
    index: Tensor | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> Certificates:
    """Lower bounds of the margins over all perturbed images: the proof that no attack succeeds.

    Three methods, each for the examples that those before it leave open: linear bounds (CROWN); the
    same with optimised slopes of all activations (alpha-CROWN), those of the first layer's
    ReLUs one for each pixel, and with the last hidden values bounded for those inputs alone whose
    margin would be negative; and branch and bound over the signs of ReLUs (beta-CROWN).

    The bounds hold for the network in exact arithmetic and for the network run in float32, in
    whatever order its sums are made, and allow for the rounding of the bounds' own sums; not for
    TensorFloat-32, half precision, or convolutions by Winograd's method or by FFT.

    Args:
        model: images in [0, 1] to logits ``(n, k)``; taken in evaluation mode, and left unchanged.
            Piecewise linear, or with sigmoids and tanhs: see
            :func:`robaudit.certified.graph.graph_of`.
        x: images ``(n, c, h, w)`` in [0, 1].
        y: labels ``(n,)``.
        threat: norm and radius.
        method: the last of the methods that are tried.
        budget: seconds of branch and bound for one example.
        splits: branches that are split for one example at most; results depend on the machine's
            speed only where ``budget`` ends earlier.
        tried: ``(n,)`` bool, the examples worth trying: those that no attack broke; default all.
            Misclassified examples are never tried.
        index: ``(n,)``, names the examples in the cache; default their positions.
        cache: keeps what is finished, and the open branches of examples whose budget ended, from
            which a larger budget goes on. Several devices use it at once.
        progress: called with examples done and examples tried.

    Returns:
        Bounds and verdicts, one for each example.

    Raises:
        NotCertifiableError: the network has functions that cannot be bounded, or is too large.
        UsageError: an unknown method, a budget below zero, arguments of other shapes.

    Source: Zhang et al., NeurIPS 2018 (CROWN); Xu et al., ICLR 2021 (alpha-CROWN);
    Tjandraatmadja et al., NeurIPS 2020 (convex hulls); Wang et al., NeurIPS 2021 (beta-CROWN);
    Kotha et al., NeurIPS 2023 (the assumed margin).

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> net[1].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    >>> round(float(certify(net, x, y, ThreatModel("linf", 0.25)).lower), 3)
    0.5
    """
    if not budget >= 0:
        raise UsageError(f"budget: {budget:g} seconds", "Give 0 or more.")
    if splits is not None and splits < 0:
        raise UsageError(f"splits: {splits}", "Give 0 or more.")
    certifiers, notes = prepared(model, tuple(x.shape[1:]))
    devices = [certifier.device for certifier in certifiers]
    correct = classified(model, x, y)
    rows = (correct if tried is None else correct & tried.cpu()).nonzero()[:, 0]
    names = (torch.arange(len(x)) if index is None else index).tolist()
    lower = torch.full((len(x),), -torch.inf, dtype=torch.float64)
    counts = torch.zeros(len(x), dtype=torch.int64)
    by = [""] * len(x)
    margins: dict[int, Tensor] = {}

    def crowned(at: int, part: Tensor) -> Tensor:
        region = Region.around(x[part].to(devices[at]), threat.norm, threat.eps)
        compute = _crown(certifiers[at], region, y[part])
        return cache(piece("crown", names, part), compute)["margins"].cpu()

    def raised(at: int, row: int) -> tuple[float, int, str]:
        region = Region.around(x[row : row + 1].to(devices[at]), threat.norm, threat.eps)
        single = Single(certifiers[at], region, int(y[row]), margins[row], str(names[row]), cache)
        smallest, splitted, last = float(single.raised.min()), 0, "alpha"
        if not smallest > 0 and method == "branch":
            (smallest, splitted), last = single.branched(budget, splits), "branch"
        return smallest, splitted, last if smallest > 0 else ""

    parts = torch.split(rows, certifiers[0].together) if len(rows) else ()
    for part, found in zip(parts, over_devices(devices, parts, crowned), strict=True):
        for row, values in zip(part.tolist(), found, strict=True):
            margins[row], lower[row] = values, values.min()
            by[row] = "crown" if lower[row] > 0 else ""
        _tell(progress, sum(map(bool, by)), len(rows))
    further = method != "crown" and certifiers[0].linear
    left = [row for row in rows.tolist() if not by[row]] if further else []
    bounds = zip(left, over_devices(devices, left, raised), strict=True)
    for ready, (row, (smallest, splitted, last)) in enumerate(bounds, len(rows) - len(left)):
        lower[row], counts[row], by[row] = smallest, splitted, last
        _tell(progress, ready + 1, len(rows))
    return Certificates(lower, lower > 0, tuple(by), counts, notes)


def classified(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """``(n,)`` bool on the CPU, the examples that the network classifies correctly."""
    with frozen(model):
        return Runner(model, device_of(model)).logits(x).argmax(1).cpu() == y.cpu()


def prepared(model: nn.Module, shape: tuple[int, ...]) -> tuple[list[Certifier], tuple[str, ...]]:
    """The network as a graph on each of its devices, checked for size; and notes.

    Raises:
        NotCertifiableError: the network has functions that cannot be bounded, or is too large.
    """
    graph = graph_of(model, shape, accept=_check_size)
    cost, devices = products(graph), devices_of(model)
    linear = cost <= _LINEAR.get(devices[0].type, _LINEAR["cpu"])
    certifiers = [Certifier(graph.to(torch.float64, one), one, linear=linear) for one in devices]
    if linear:
        return certifiers, ()
    return certifiers, (
        "hidden values have interval bounds only, and only crown is tried: linear bounds would "
        f"take {cost:.0e} products an image",
    )


def _check_size(graph: Graph) -> None:
    cost = products(graph)
    if cost > _LARGEST:
        raise NotCertifiableError(
            f"not certifiable at this size: linear bounds would take {cost:.0e} products an image"
        )


def products(graph: Graph) -> float:
    """Products that linear bounds of all hidden values of one image take at most."""
    total = 0.0
    for node in graph.nodes:
        if node.kind in ("relu", "tanh"):
            below = (graph.nodes[k] for k in ancestors(graph, node.inputs[0]))
            one = sum(k.operator.terms * math.prod(k.shape) for k in below if k.operator)
            total += 2.0 * math.prod(node.shape) * one
    return total


def piece(kind: str, names: list[int], rows: Tensor) -> str:
    """The name in the cache of what is computed for some rows together."""
    digest = hashlib.sha256(repr([names[row] for row in rows.tolist()]).encode()).hexdigest()
    return f"{kind}-{digest[:16]}"


def _crown(certifier: Certifier, region: Region, y: Tensor) -> Callable[[], dict[str, Tensor]]:
    return lambda: {"margins": certifier.crown(region, y)}


def _tell(progress: Progress | None, done: int, total: int) -> None:
    if progress is not None and total:
        progress(done, total)
