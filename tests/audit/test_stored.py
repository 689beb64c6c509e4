"""An audit of stored images: the same numbers, bit for bit."""

from dataclasses import replace

import pytest
import torch

from robaudit.attacks import apgd, fab, square
from robaudit.audit import Plan, audit
from robaudit.audit.probes import (
    AutoAttack,
    Average,
    Cw,
    Fast,
    Hessian,
    Pgd,
    Square,
    TopLayer,
    Wci,
    Worst,
)
from robaudit.data import load_examples
from robaudit.data.keeping import content_hash
from robaudit.engine import images, spilled
from robaudit.engine.images import StoredImages
from robaudit.report.gallery import make_gallery

PGD = Pgd(steps=3)
PLANS = {
    "attacks": Plan(probes=(PGD, Cw.like(PGD), Square(queries=20), Fast()), radii=(0.05, 0.1)),
    "curvature": Plan(
        probes=(
            PGD,
            Wci(PGD),
            TopLayer(PGD),
            Hessian(PGD, n=None, steps=6, probes=1, density_steps=4),
        )
    ),
    "flatness": Plan(probes=(Average(PGD, perturbations=2), Worst(PGD, passes=2, restarts=1))),
    "autoattack": Plan(probes=(AutoAttack(version="rand", batch_size=100),)),
}


@pytest.fixture(scope="module")
def many():
    return load_examples("digits", n=320)


@pytest.fixture
def stored(many, monkeypatch):
    """The examples as a set too large to be held: what is made of them is spilled and stored."""
    image = many.x[0].nbytes
    monkeypatch.setattr(images, "LARGE", 300 * image)
    monkeypatch.setattr(spilled, "LARGE", 300 * image)
    monkeypatch.setattr(images, "_TILE_BYTES", 50 * image)

    return replace(many, x=StoredImages(many.x.shape, lambda rows: many.x[rows]))


def values(report):
    return {(m.name, m.split): (m.status, m.value, m.details) for m in report.measurements}


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS.keys())
def test_the_numbers_are_those_of_plain_images(plan, robust, many, stored, threat):
    made = audit(robust, stored, threat, plan)
    same = audit(robust, many, threat, plan)
    assert values(made.report) == values(same.report)
    assert all(torch.equal(made.outcomes[name], same.outcomes[name]) for name in same.outcomes)
    if same.adversarial is not None:
        found = made.adversarial.x
        parts = [found[start : start + 8] for start in range(0, len(many), 8)]
        assert torch.equal(torch.cat(parts), same.adversarial.x)
        assert make_gallery(robust, stored, made.adversarial) is not None


@pytest.mark.slow
@pytest.mark.parametrize("attack", [apgd, fab, square])
def test_attacks_keep_large_results_in_parts(attack, robust, many, stored, threat):
    own = {"queries": 10} if attack is square else {"steps": 3}
    made = attack(robust, stored.x, many.y, threat, **own)
    same = attack(robust, many.x, many.y, threat, **own)
    assert torch.equal(made.robust, same.robust)
    assert isinstance(made.x, StoredImages)
    assert torch.equal(torch.cat([made.x[:9], made.x[9:50], made.x[50:300], made.x[300:]]), same.x)


def test_the_hash_is_that_of_the_plain_images(many, stored):
    assert content_hash(stored.x, many.y) == many.sha256 == content_hash(many.x, many.y)
