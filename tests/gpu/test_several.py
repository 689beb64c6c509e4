"""Two GPUs, where there are two, have the verdicts of one."""

import json

import pytest
import torch
from support.console import robaudit

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.types import ThreatModel

pytestmark = pytest.mark.gpu
LINF, L2 = ThreatModel("linf", 0.15), ThreatModel("l2", 0.5)


@pytest.fixture
def models():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    return [ra.load(samples_dir() / "robust.pt", device=d) for d in ("cuda:0", "cuda:0,cuda:1")]


@pytest.mark.parametrize(
    ("attack", "threat"),
    [
        (lambda *a: ra.attacks.pgd(*a, steps=10, precision="fp32"), LINF),
        (lambda *a: ra.attacks.apgd(*a, steps=20), LINF),
        (lambda *a: ra.attacks.fab(*a, targets=3, steps=20), LINF),
        (lambda *a: ra.attacks.square(*a, queries=300), L2),
        (lambda *a: ra.attacks.fast(*a), LINF),
    ],
    ids=["pgd", "apgd", "fab", "square", "fast"],
)
def test_attacks(attack, threat, models):
    examples = ra.load_examples("digits", n=512)
    one, two = (attack(model, examples.x, examples.y, threat) for model in models)
    assert int((one.robust != two.robust).sum()) <= 2  # passes of other sizes round differently


def test_spectra(models):
    examples = ra.load_examples("digits", n=256)
    one, two = (ra.curvature.spectrum(m, examples.x, examples.y, top=1).largest[0] for m in models)
    assert two == pytest.approx(one, rel=1e-3)


def test_every_gpu_of_the_machine_is_named():
    words = ("--attack", "pgd", "--n", 64, "--quiet", "--json", "--device", "cuda:all")
    ran = robaudit("attack", samples_dir() / "robust.pt", *words)
    assert ran.code == 0, ran.err
    named = json.loads(ran.out)["provenance"]["device"]
    assert all(f"cuda:{at}" in named for at in range(torch.cuda.device_count()))
