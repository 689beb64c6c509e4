"""A CPU and a pretended GPU share a network's examples: nothing of one meets what is on the other.

Users cannot ask for that pair; here it shows tensors that were left on another device.
"""

import pytest
import torch
from support.attacks import examples, network
from support.pretended_gpu import GPU, on_gpu, pretended_gpu

from robaudit import attacks, curvature, flatness
from robaudit.engine import several, spread
from robaudit.flatness import losses
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
LINF, L2, L1 = ThreatModel("linf", 0.08), ThreatModel("l2", 0.4), ThreatModel("l1", 1.5)
ATTACKS = {
    "pgd": lambda *a: attacks.pgd(*a, steps=3, restarts=2, precision="fp32"),
    "pgd until broken": lambda *a: attacks.pgd(*a, steps=3, mode="accuracy"),
    "apgd": lambda *a: attacks.apgd(*a, steps=5),
    "apgd, targeted": lambda *a: attacks.apgd(*a, loss="dlr", targets=2, steps=5),
    "fab": lambda *a: attacks.fab(*a, targets=2, steps=3),
    "square": lambda *a: attacks.square(*a, queries=45),
}
NUMBERS = {
    "eigenvalue": lambda *a: curvature.spectrum(*a, top=1, probes=1).largest[0],
    "Gauss-Newton": lambda *a: curvature.spectrum(
        *a, top=1, probes=1, operator="gauss-newton"
    ).largest[0],
    "exact traces": lambda *a: curvature.layer_traces(*a, precision="auto").total,
    "traces by probes": lambda *a: curvature.layer_traces(*a, estimator="hessian").total,
    "average flatness": lambda *a: flatness.average(*a, LINF, perturbations=2, steps=2).value,
    "adaptive sharpness": lambda *a: flatness.adaptive_worst(*a, m=30, steps=2).value,
    "worst flatness": lambda *a: flatness.worst(*a, LINF, passes=2, restarts=2).value,
}


@pytest.fixture(params=[pytest.param("CPU first", marks=pytest.mark.slow), "GPU first"])
def shared(request, monkeypatch):
    """Runs with a network on both devices, one after another in one thread; shows who worked."""
    seen = []

    def in_turn(devices, work):
        seen.append(len(work))
        return [one() for one in work]

    monkeypatch.setattr(several, "_at_once", in_turn)
    monkeypatch.setattr(losses, "_TILES", 1)

    def run(measure, x, y):
        with pretended_gpu():
            model, devices = network(), (CPU, GPU)
            if request.param == "GPU first":
                model, devices = on_gpu(model), (GPU, CPU)
            found = measure(spread(model, devices), x, y)
        assert 2 in seen
        return found

    return run


@pytest.mark.parametrize(
    ("name", "threat"),
    [*((name, LINF) for name in ATTACKS), ("square", L2), ("apgd", L1)],
)
def test_attacks(name, threat, shared):
    x, y = examples(network(), 70)
    alone = ATTACKS[name](network(), x, y, threat)
    both = shared(lambda model, x, y: ATTACKS[name](model, x, y, threat), x, y)
    assert float((both.robust != alone.robust).sum()) <= 1
    assert float((both.x - alone.x).abs().gt(1e-5).double().mean()) < 0.05


@pytest.mark.parametrize("name", NUMBERS)
def test_curvature_and_flatness(name, shared):
    x, y = examples(network(), 70)
    alone = NUMBERS[name](network(), x, y)
    assert shared(NUMBERS[name], x, y) == pytest.approx(alone, rel=1e-2)
