"""The largest radius within which each image is certified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from robaudit.certified.certify import classified, piece, prepared
from robaudit.certified.margins import Certifier
from robaudit.certified.regions import Region
from robaudit.engine.arguments import checked
from robaudit.engine.several import over_devices
from robaudit.errors import UsageError
from robaudit.types import Cache, Norm, Progress, no_cache, parse_norm

# Halvings of the interval: radii are known to a thousandth of the largest.
_HALVINGS = 10


@checked
def certified_radii(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    norm: Norm,
    *,
    largest: float,
    method: Literal["crown", "alpha"] = "crown",
    index: Tensor | None = None,
    cache: Cache = no_cache,
    progress: Progress | None = None,
) -> Tensor:
    """The largest radius found at which each image is certified, by bisection.

    Every radius that is returned is certified itself, with all smaller ones; a larger one may be
    certified too: the bounds need not fall steadily with the radius.

    Args:
        model: images in [0, 1] to logits ``(n, k)``, as for :func:`certify`.
        x: images ``(n, c, h, w)`` in [0, 1].
        y: labels ``(n,)``.
        norm: ``linf``, ``l2`` or ``l1``.
        largest: the largest radius that is tried.
        method: CROWN, or with optimised slopes where CROWN does not certify.
        index: ``(n,)``, names the examples in the cache; default their positions.
        cache: keeps finished images.
        progress: called with images done and images tried.

    Returns:
        ``(n,)`` float64 radii; 0 where the image is misclassified or certified at no radius tried.

    Raises:
        NotCertifiableError: the network has functions that cannot be bounded, or is too large.
        UsageError: an unknown norm or method, or a largest radius that is not positive.

    Source: Zhang et al., NeurIPS 2018 (the bounds); the bisection is theirs too, sec. 4.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    >>> net[1].weight.data = torch.tensor([[1.0], [-1.0]])
    >>> x, y = torch.full((1, 1, 1, 1), 0.25), torch.tensor([0])
    >>> round(float(certified_radii(net, x, y, "linf", largest=0.2)), 3)
    0.2
    """
    norm = parse_norm(norm)
    if not largest > 0:
        raise UsageError(f"largest: {largest:g}", "Give a radius above 0.")
    certifiers, _ = prepared(model, tuple(x.shape[1:]))
    devices = [certifier.device for certifier in certifiers]
    names = (torch.arange(len(x)) if index is None else index).tolist()
    radii = torch.zeros(len(x), dtype=torch.float64)
    rows, done = classified(model, x, y).nonzero()[:, 0], 0

    def of(at: int, part: Tensor) -> Tensor:
        images = x[part].to(devices[at])
        compute = _bisected(certifiers[at], images, y[part], norm, largest, method)
        return cache(piece("radius", names, part), compute)["radii"].cpu()

    parts = torch.split(rows, certifiers[0].together) if len(rows) else ()
    for part, found in zip(parts, over_devices(devices, parts, of), strict=True):
        radii[part] = found
        done += len(part)
        if progress is not None:
            progress(done, len(rows))
    return radii


def _bisected(
    certifier: Certifier, x: Tensor, y: Tensor, norm: Norm, largest: float, method: str
) -> Callable[[], dict[str, Tensor]]:
    def certified(radii: Tensor) -> Tensor:
        region = Region.around(x, norm, radii)
        lower = certifier.crown(region, y)
        if method == "alpha":
            for row in (lower <= 0).any(1).nonzero()[:, 0].tolist():
                one = region.rows(slice(row, row + 1))
                lower[row] = certifier.raised(one, int(y[row]), lower[row])[1]
        return (lower > 0).all(1)

    def bisected() -> dict[str, Tensor]:
        high = torch.full((len(x),), largest, dtype=torch.float64, device=x.device)
        low = torch.where(certified(high), high, torch.zeros_like(high))
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            holds = certified(middle)
            low, high = torch.where(holds, middle, low), torch.where(holds, high, middle)
        return {"radii": low}

    return bisected
