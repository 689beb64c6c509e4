"""Every measure of one network on one split."""

from __future__ import annotations

import math

from running import Row

import robaudit as ra
from robaudit.curvature import spectrum


def measured(
    model: ra.Classifier,
    part: ra.Examples,
    threat: ra.ThreatModel,
    steps: int,
    draws: int,
    restarts: int,
) -> tuple[Row, ra.attacks.AttackResult]:
    """Accuracies, robust loss, traces, eigenvalues and flatness, all at the same PGD examples.

    Returns: the measures, and those examples.
    """
    x, y, index = part.x, part.y, part.index
    met = ra.attacks.pgd(model, x, y, threat, steps=steps, index=index)
    found: Row = {
        "clean": float(met.correct.double().mean()),
        "robust": float(met.robust.double().mean()),
        "loss": float(met.loss.double().mean()),
    }
    curved = ra.curvature.wci(model, met.x, y)
    found["wci"], found["trace"] = curved.value, curved.traces.total
    found["weights"] = math.sqrt(sum(row.frobenius**2 for row in curved.layers))
    for name, relative in (("largest", False), ("relative", True)):
        ends = spectrum(model, met.x, y, top=1, probes=1, density_steps=1, relative=relative)
        found[f"hessian.{name}"] = ends.largest[0]
    common = {"steps": steps, "index": index, "reference": met}
    found["flatness.average"] = ra.flatness.average(
        model, x, y, threat, perturbations=draws, **common
    ).value
    found["flatness.worst"] = ra.flatness.worst(
        model, x, y, threat, restarts=restarts, **common
    ).value
    return found, met
