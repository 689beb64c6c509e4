"""What a fast search on a GPU finds is judged in float32, and is about what the CPU finds."""

import warnings
from importlib import import_module

import pytest
import torch

import robaudit as ra
from robaudit.attacks import apgd_loop
from robaudit.attacks.verification import verify
from robaudit.audit import Plan, audit
from robaudit.audit.probes import AutoAttack, Cw, Fast, Pgd, Square
from robaudit.checkpoints import samples_dir

pytestmark = pytest.mark.gpu
THREAT = ra.ThreatModel("linf", 0.15)
ROBUST = samples_dir() / "robust.pt"
ATTACKS = {
    "pgd": Pgd(steps=10),
    "cw": Cw(steps=10),
    "fast": Fast(),
    "square": Square(queries=200),
    "autoattack": AutoAttack(engine="native"),
}


def measured(device, probe, n=128, **how):
    examples = ra.load_examples("digits", n=n)
    done = audit(
        ra.load(ROBUST, device=device), examples, THREAT, Plan(n=n, probes=(probe,)), **how
    )
    name = f"test.accuracy.{probe.name}"
    return done, done.outcomes[name].bool(), done.outcomes["test.accuracy.clean"].bool()


@pytest.mark.parametrize("name", ATTACKS)
def test_float32_confirms_every_break_of_the_fastest_search(name):
    examples = ra.load_examples("digits", n=128)
    done, stands, right = measured("cuda", ATTACKS[name])
    if torch.cuda.get_device_capability()[0] >= 8:
        assert "searches in" in done.report.provenance.precision
    fell = right & ~stands
    assert fell.any()
    found = done.adversarial.x
    for device, allowed in (("cuda", 0), ("cpu", 1)):
        # Logits that all but agree may have the other order in the CPU's float32.
        model = ra.load(ROBUST, device=device)
        breaks = verify(model, examples.x, found, examples.y, THREAT).breaks
        assert int((fell & ~breaks).sum()) <= allowed


@pytest.mark.parametrize("name", ATTACKS)
def test_each_arithmetic_leaves_about_what_the_cpu_leaves(name):
    _, wanted, _ = measured("cpu", ATTACKS[name], precision="fp32")
    for precision in ("fp32", "tf32", "bf16"):
        _, found, _ = measured("cuda", ATTACKS[name], precision=precision)
        assert int((found != wanted).sum()) <= 3, precision  # of 128


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_squares_recorded_queries_are_the_cpus(norm):
    """Draws are the same integers, so that images differ only where margins all but agree."""
    examples = ra.load_examples("digits", n=100)
    threat = ra.ThreatModel(norm, {"linf": 0.1, "l2": 0.5}[norm])
    here, there = (
        ra.attacks.square(
            ra.load(ROBUST, device=device), examples.x, examples.y, threat, queries=60
        )
        for device in ("cpu", "cuda")
    )
    assert int((here.robust != there.robust).sum()) <= 1
    apart = (here.x - there.x).abs().flatten(1).amax(1) > 1e-4
    assert float(apart.float().mean()) < 0.05


@pytest.mark.parametrize("name", ATTACKS)
def test_two_gpus_have_the_numbers_of_one(name):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    _, alone, _ = measured("cuda:0", ATTACKS[name], n=300, precision="fp32")
    _, both, _ = measured("cuda:0,cuda:1", ATTACKS[name], n=300, precision="fp32")
    assert int((alone != both).sum()) <= 1


def test_a_batch_of_another_size_leaves_the_same_in_the_fastest_arithmetic():
    # cuDNN may choose another kernel for another batch: at most 1 % of verdicts.
    _, one, _ = measured("cuda", ATTACKS["pgd"], n=500, batch_size=64)
    _, other, _ = measured("cuda", ATTACKS["pgd"], n=500, batch_size=512)
    assert float((one != other).float().mean()) <= 0.01


def waits(attack, **how):
    """How often the processor waits for the GPU in an attack."""
    examples, model = ra.load_examples("digits", n=64), ra.load(ROBUST, device="cuda")
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            attack(model, examples.x, examples.y, THREAT, **how)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroni" in str(one.message) for one in said)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_step_of_pgd_waits_for_the_gpu(precision):
    """However many steps there are, the processor waits as often."""
    how = {"precision": precision}
    waits(ra.attacks.pgd, steps=20, **how)
    # Both are recorded, which is compared with a plain pass.
    assert waits(ra.attacks.pgd, steps=40, **how) == waits(ra.attacks.pgd, steps=20, **how)


@pytest.mark.parametrize("name", ["apgd", "fab"])
def test_no_step_of_apgd_and_fab_waits_for_the_gpu(name, monkeypatch):
    """But at the end of a segment of steps, where broken examples may leave."""
    monkeypatch.setattr(apgd_loop, "_segments", lambda steps: [range(steps)])
    monkeypatch.setattr(import_module("robaudit.attacks.fab"), "_SEGMENT", 1 << 20)
    attack = getattr(ra.attacks, name)
    waits(attack, steps=20)
    assert waits(attack, steps=40) == waits(attack, steps=20)
