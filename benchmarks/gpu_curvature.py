"""The rows of ``gpu.py`` with traces and eigenvalues."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from gpu_bench import Bench, Line, absent
from torch import Tensor, nn

import robaudit as ra
from robaudit.engine.precision import default_precision


def traces(bench: Bench) -> Iterator[Line]:
    some = bench.first(1000)
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    run = partial(ra.curvature.wci, bench.model, some.x, some.y, precision="auto")
    run()
    ours, found = bench.timed(run, 3)
    notes = [f"total trace {found.traces.total:.3f}, WCI {found.value:.3f}"]
    base, probes = _pyhessian(bench, x, y, lambda peer: peer.trace())
    if base:
        notes.append(f"PyHessian's {statistics.fmean(probes):.3f} after {len(probes)} probes")
    yield Line(
        f"exact traces and WCI, {len(x)} images", ours,
        "PyHessian's trace" if base else absent("PyHessian"), base, 0.05, notes=tuple(notes),
    )  # fmt: skip


def eigenvalue(bench: Bench) -> Iterator[Line]:
    some = bench.first(1000)
    x, y = some.x.to(bench.device), some.y.to(bench.device)
    run = partial(ra.curvature.largest_eigenvalue, bench.model, some.x, some.y, tolerance=1e-3)
    ours, found = bench.timed(run)
    off = found.residual / abs(found.value)
    notes = [f"{found.value:.4f}, residual {off:.1e} of it"]
    base, theirs = _pyhessian(bench, x, y, lambda peer: peer.eigenvalues(tol=1e-3)[0][0])
    if base:
        notes.append(f"PyHessian's {theirs:.4f}, without a residual")
    yield Line(
        f"largest eigenvalue to 1e-3, {len(x)} images", ours,
        "PyHessian's" if base else absent("PyHessian"), base, 0.5, notes=tuple(notes),
    )  # fmt: skip


def _pyhessian(
    bench: Bench, x: Tensor, y: Tensor, measure: Callable[[Any], Any]
) -> tuple[float | None, Any]:
    """Seconds of a measurement by PyHessian, and its value; ``None`` twice where it is absent."""
    if absent("PyHessian"):
        return None, None
    from pyhessian import hessian

    torch.manual_seed(0)
    bench.model.requires_grad_(True)
    cuda = bench.device.type == "cuda"
    peer = hessian(bench.model, nn.CrossEntropyLoss(), data=(x, y), cuda=cuda)
    with default_precision():
        seconds, value = bench.timed(lambda: measure(peer))
    bench.model.zero_grad(set_to_none=True)
    return seconds, value
