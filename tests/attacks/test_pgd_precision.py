"""PGD searched in bfloat16: the network as it stands has the last word on losses and verdicts."""

import pytest
import torch
from support.console import ROBUST
from torch.nn import functional as F

import robaudit as ra
from robaudit.attacks import pgd
from robaudit.engine import Runner, accelerate, frozen
from robaudit.types import ThreatModel

THREAT, CPU = ThreatModel("linf", 0.15), torch.device("cpu")
HOW = {"steps": 5, "restarts": 2, "seed": 3}


@pytest.fixture(scope="module")
def model():
    return ra.load(ROBUST, device="cpu").requires_grad_(False).eval()


@pytest.fixture(scope="module")
def digits():
    return ra.load_examples("digits", n=150)


@pytest.fixture(scope="module")
def double(model):
    """The network's logits in float64."""
    exact = ra.load(ROBUST, device="cpu").requires_grad_(False).eval().double()
    return lambda x: exact(x.double())


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_losses_and_verdicts_are_those_of_the_network_itself(model, digits, double, loss, mode):
    x, y = digits.x, digits.y
    found = pgd(model, x, y, THREAT, **HOW, loss=loss, mode=mode, precision="bf16")
    exact = pgd(model, x, y, THREAT, **HOW, loss=loss, mode=mode, precision="fp32")
    assert (found.searched, exact.searched) == ("bf16", "fp32")
    assert not torch.equal(found.x, exact.x)  # or the test compares a search with itself
    clean, at_x, at_break = (double(points) for points in (x, found.x, found.broken_x))
    before, after = (F.cross_entropy(z, y, reduction="none").float() for z in (clean, at_x))
    assert torch.equal(found.correct, clean.argmax(1) == y)
    assert torch.equal(found.robust, found.correct & (at_break.argmax(1) == y))
    assert bool((found.loss >= before - 1e-5).all())
    assert float((found.x - x).abs().max()) <= THREAT.eps * (1 + 1e-6)
    if mode == "accuracy":
        assert torch.equal(found.robust, found.correct & (at_x.argmax(1) == y))
    elif loss == "ce":
        torch.testing.assert_close(found.loss, after, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.reached, exact.reached, rtol=0.2, atol=0.02)
        assert float(found.loss.mean()) == pytest.approx(float(exact.loss.mean()), rel=0.01)
    else:
        own = at_x.gather(1, y[:, None])[:, 0]
        others = at_x.scatter(1, y[:, None], -torch.inf).amax(1)
        torch.testing.assert_close(found.reached, (others - own).float(), rtol=1e-4, atol=1e-4)
    assert int((found.robust != exact.robust).sum()) <= 1


@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_neither_batch_nor_order_nor_other_examples_matter(model, digits, mode):
    """Within a precision, bit for bit."""
    x, y, index = digits.x, digits.y, digits.index
    with frozen(model):
        form = accelerate(model, (1, 8, 8), "bf16", examples=x, threat=THREAT)

        def run(rows, size="auto"):
            searcher = Runner(form.forward, CPU, size, precision=form.precision)
            how = {**HOW, "mode": mode, "searcher": searcher, "index": index[rows]}
            return pgd(Runner(model, CPU), x[rows], y[rows], THREAT, **how)

        whole = run(torch.arange(len(x)))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        for rows in (order, torch.tensor([40]), torch.arange(60, 140)):
            other = run(rows, 7)
            for name in ("x", "broken_x", "loss", "robust", "stuck", "reached"):
                assert torch.equal(getattr(other, name), getattr(whole, name)[rows]), name
    assert whole.searched == "bf16"


def test_more_restarts_never_help_the_defender(model, digits):
    how = {"steps": 4, "precision": "bf16"}
    one, three = (
        pgd(model, digits.x, digits.y, THREAT, restarts=restarts, **how) for restarts in (1, 3)
    )
    assert bool((three.loss >= one.loss).all())
    assert bool((three.robust <= one.robust).all())


@pytest.mark.parametrize("mode", ["loss", "accuracy"])
def test_what_a_search_of_another_network_misses_the_network_itself_finds(model, digits, mode):
    """The searcher sees every image misclassified and descends instead of climbing."""
    x, y = digits.x, digits.y
    with frozen(model):
        judge = Runner(model, CPU)
        alone = pgd(judge, x, y, THREAT, **HOW, mode=mode)
        liar = Runner(lambda images: -model(images), CPU, precision="bf16")
        misled = pgd(judge, x, y, THREAT, **HOW, mode=mode, searcher=liar)
    assert misled.searched == "bf16"
    assert torch.equal(misled.robust, alone.robust)
    assert torch.equal(model(misled.broken_x).argmax(1) == y, misled.robust)
    if mode == "loss":
        right = alone.robust
        torch.testing.assert_close(misled.loss[right], alone.loss[right])


def test_a_search_that_does_not_climb_is_done_again_in_float32(model, digits):
    """A searcher whose logits hardly depend on the images has no gradient worth following."""
    x, y = digits.x, digits.y
    with frozen(model):
        judge = Runner(model, CPU)
        flat = Runner(lambda images: model(images) * 0 + model(x[:1]), CPU, precision="bf16")
        found = pgd(judge, x, y, THREAT, **HOW, searcher=flat)
        alone = pgd(judge, x, y, THREAT, **HOW)
    assert torch.equal(found.robust, alone.robust)
    assert bool((found.loss >= alone.loss)[alone.robust].all())
    assert torch.equal(found.stuck, alone.stuck)


def test_only_last_iterates_count(model, digits):
    """A step so large that it overshoots: what was broken on the way may stand at the end."""
    how = {"steps": 3, "step_size": 1.7 * THREAT.eps, "precision": "bf16"}
    worst, last = (
        pgd(model, digits.x, digits.y, THREAT, **how, last_iterate=last) for last in (False, True)
    )
    assert bool((worst.robust <= last.robust).all())
    assert int(worst.robust.sum()) < int(last.robust.sum())
    assert torch.equal(model(last.broken_x).argmax(1) == digits.y, last.robust)
