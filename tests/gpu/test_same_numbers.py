"""A GPU gives the CPU's numbers within stated tolerances."""

import pytest
import torch

import robaudit as ra
from robaudit.audit import audit, preset
from robaudit.checkpoints import samples_dir
from robaudit.engine import Runner, arithmetic

pytestmark = pytest.mark.gpu
THREAT = ra.ThreatModel("linf", 0.15)


def test_logits_agree_to_float32_rounding():
    x = ra.load_examples("digits").x
    on = {}
    for device in ("cpu", "cuda"):
        model = ra.load(samples_dir() / "robust.pt", device=device)
        with arithmetic("fp32"):
            on[device] = Runner(model, torch.device(device)).logits(x).cpu()
    torch.testing.assert_close(on["cuda"], on["cpu"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["standard.pt", "robust.pt", "smooth.safetensors"])
def test_an_audit_gives_the_same_numbers(name):
    """Rounding may turn an attack on a few examples: a third of a standard error, or 1 %."""
    examples = ra.load_examples("digits", n=256)
    reports = [
        audit(
            ra.load(samples_dir() / name, device=device),
            examples,
            THREAT,
            preset("quick"),
            precision="fp32",
        ).report
        for device in ("cpu", "cuda")
    ]
    assert "cuda" in reports[1].provenance.device
    for want in reports[0].measurements:
        got = reports[1].get(want.name, want.split)
        allowed = max((want.standard_error or 0) / 3, 0.01 * abs(want.value), 1e-4)
        assert got.value == pytest.approx(want.value, abs=allowed), want.name


def test_batch_size_changes_no_verdict():
    examples = ra.load_examples("digits")
    model = ra.load(samples_dir() / "robust.pt", device="cuda")
    with arithmetic("fp32"):
        one, other = (
            ra.attacks.pgd(model, examples.x, examples.y, THREAT, batch_size=size)
            for size in (64, 512)
        )
    # cuDNN may choose another kernel for another batch; what it changes is below 1 % of verdicts.
    assert float((one.robust != other.robust).float().mean()) < 0.01
