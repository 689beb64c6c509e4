"""Every probe of an audit gives on a GPU what it gives on the CPU."""

import pytest
from support.corrupted import write_arrays

import robaudit as ra
from robaudit.audit import Plan, audit
from robaudit.audit import probes as p
from robaudit.checkpoints import samples_dir

THREAT = ra.ThreatModel("linf", 0.15)
PGD = p.Pgd(steps=5)
SURROGATE = str(samples_dir() / "standard.pt")
# Each probe of a plan, with settings of its own where there are several ways to compute it.
PROBES = {
    "pgd": [PGD, p.Pgd(steps=5, restarts=2)],
    "cw": [p.Cw(steps=5)],
    "fast": [p.Fast()],
    "autoattack": [p.AutoAttack(engine="native"), p.AutoAttack(engine="reference")],
    "transfer": [p.Transfer(PGD, SURROGATE)],
    "replay": [],  # judges a file, which the command line writes: tests/gpu/test_command_line.py
    "square": [p.Square(queries=100)],
    "distance": [p.Distance()],
    "certified": [p.Certified("crown")],
    "corruptions": [p.Corruptions(), p.Corruptions(corruptions=("fog",), severities=(5,))],
    "union": [p.Union()],
    "classes": [p.Classes(), p.Classes(fast=True)],
    "wci": [
        p.Wci(PGD, estimator="exact"),
        p.Wci(PGD, estimator="gauss-newton"),
        p.Wci(PGD, estimator="hessian", layers="all"),
    ],
    "top_layer": [
        p.TopLayer(PGD, objective=name)
        for name in ("at", "trades", "alp", "mart")
    ],
    "hessian": [
        p.Hessian(PGD, n=32, top=2),
        p.Hessian(PGD, n=32, top=2, operator="gauss-newton", spread_probes=2),
        p.Hessian(PGD, n=32, top=2, engine="pyhessian"),
    ],
    "average": [p.Average(PGD, perturbations=2, clean=True, radii=(0.1,))],
    "worst": [p.Worst(PGD, passes=2, restarts=1, clean=True)],
    "adaptive_worst": [
        p.AdaptiveWorst(PGD, steps=5, m=32),
        p.AdaptiveWorst(PGD, steps=5, norm="l2", rho=0.5, normalize_logits=False),
    ],
    "adaptive_average": [p.AdaptiveAverage(PGD), p.AdaptiveAverage(PGD, norm="linf")],
    "path_norm": [p.PathNorm()],
    "spectral_norms": [p.SpectralNorms()],
    "relative_flatness": [p.RelativeFlatness(PGD)],
    "fisher_rao": [p.FisherRao(PGD)],
    "margins": [p.Margins(PGD)],
    "input_gradient": [p.InputGradient(PGD)],
    "alignment": [p.Alignment(PGD)],
    "linearity": [p.Linearity(PGD, steps=5)],
    "calibration": [p.Calibration(PGD)],
}  # fmt: skip
CASES = [(name, at) for name, settings in PROBES.items() for at in range(len(settings))]


def test_no_probe_is_forgotten():
    assert PROBES.keys() == {probe.name for probe in p.known()} - {"clean"}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "digits-c").parent


def measured(device, network, plan, data_dir, surrogate=None):
    model = ra.load(samples_dir() / network, device=device)
    other = ra.load(surrogate, device=device) if surrogate else None
    examples = ra.load_examples("digits", n=64)
    report = audit(model, examples, THREAT, plan, surrogate=other, data_dir=data_dir).report
    assert report.provenance.device.startswith(device)
    return report


@pytest.mark.gpu
@pytest.mark.parametrize("network", ["robust.pt", "smooth.safetensors"])
@pytest.mark.parametrize(("probe", "at"), CASES)
def test_a_probe_gives_the_same_numbers(probe, at, network, data_dir):
    """Rounding may turn an attack on an example or two: a third of a standard error, or 2 %."""
    settings = PROBES[probe][at]
    plan = Plan(n=64, probes=(settings,))
    surrogate = SURROGATE if probe == "transfer" else None
    want, got = (measured(device, network, plan, data_dir, surrogate) for device in ("cpu", "cuda"))
    assert [m.name for m in got.measurements] == [m.name for m in want.measurements]
    for on_cpu, on_gpu in zip(want.measurements, got.measurements, strict=True):
        assert on_gpu.status == on_cpu.status, on_gpu.reason
        if on_cpu.value is not None:
            spread = (on_cpu.standard_error or 0) / 3
            if on_cpu.standard_error is None and on_cpu.interval is not None:
                # About one standard error: quantiles and roots jump where one example turns.
                spread = (on_cpu.interval.high - on_cpu.interval.low) / 4
            allowed = max(spread, 0.02 * abs(on_cpu.value), 1e-3)
            assert on_gpu.value == pytest.approx(on_cpu.value, abs=allowed), on_cpu.name


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("loss", ["ce", "margin"])
def test_an_attack_in_every_norm(norm, loss):
    threat = ra.ThreatModel(norm, {"linf": 0.15, "l2": 1.0, "l1": 4.0}[norm])
    examples = ra.load_examples("digits", n=128)
    found = {}
    for device in ("cpu", "cuda"):
        model = ra.load(samples_dir() / "robust.pt", device=device)
        adv = ra.attacks.pgd(model, examples.x, examples.y, threat, steps=10, loss=loss)
        assert adv.x.device == examples.x.device
        found[device] = adv.robust.float().mean().item()
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.02)  # two examples of 128
