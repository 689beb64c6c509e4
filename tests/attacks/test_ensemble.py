import os
from functools import partial
from pathlib import Path

import pyautoattack
import pytest
import torch
from pyautoattack import AutoAttack
from pyautoattack.autopgd_base import APGDAttack
from support.attacks import examples, network
from support.console import SAMPLES
from torch import nn

from robaudit.attacks import apgd, ensemble, fab, fast, native_autoattack, pgd, square
from robaudit.attacks.autoattack import STANDS, WRONG
from robaudit.attacks.targets import by_malt
from robaudit.checkpoints import load
from robaudit.data import load_examples
from robaudit.engine import Runner, accelerate, frozen
from robaudit.types import ThreatModel

REAL = os.environ.get("ROBAUDIT_REAL_DATA")
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}

ALONE = {
    "apgd-ce": lambda m, x, y, t: apgd(m, x, y, t, restarts=5 if t.norm == "l1" else 1),
    "apgd-t": lambda m, x, y, t: apgd(m, x, y, t, loss="dlr", targets=5 if t.norm == "l1" else 9),
    "fab-t": lambda m, x, y, t: fab(m, x, y, t, mode="accuracy"),
    "square": square,
}


def reference(model, x, y, ball, attacks):
    judge = AutoAttack(model, norm=NORMS[ball.norm], eps=ball.eps, seed=0, version="standard")
    judge.attacks_to_run = attacks
    with frozen(model):
        _, predicted = judge.run_standard_evaluation(x, y)
    return predicted == y


class Saturated(nn.Module):
    """The verdicts of a network, at logits so large that cross-entropy is flat in float32."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 1e5 * self.model(x)


class Quantised(nn.Module):
    """Steps of an eighth in the input: no gradient anywhere."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((8 * x).round() / 8 + 0 * x)


@pytest.mark.slow
def test_the_books_balance():
    model = network(classes=10)
    x, y = examples(model)
    ball = ThreatModel("linf", 0.03)
    told = []
    found = native_autoattack(model, x, y, ball, progress=lambda *at: told.append(at))
    assert tuple(found.accuracies) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert torch.equal(found.robust, found.broken_by == STANDS)
    assert torch.equal(found.correct, found.broken_by != WRONG)
    assert 0 < int(found.robust.sum()) < int(found.correct.sum())
    left = found.correct
    for place, name in enumerate(found.accuracies):
        left = left & (found.broken_by != place)
        assert found.accuracies[name] == pytest.approx(float(left.double().mean()))
    with torch.no_grad():
        assert torch.equal(found.robust, model(found.x).argmax(1) == y)
    spent = [sum(passes) for passes in zip(*found.passes.values(), strict=True)]
    assert (found.forwards, found.backwards) == (spent[0] + len(x), spent[1])
    assert found.notes == ()
    assert bool((found.distance[found.robust] > ball.eps).all())
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]
    assert found.diagnostics.attacked == int(found.correct.sum())
    assert found.diagnostics.zero_gradient == found.diagnostics.stuck == 0
    assert found.diagnostics.black_box_only == 0


@pytest.mark.slow
def test_the_same_bits_in_any_order_and_shard():
    model = network(classes=10)
    x, y = examples(model, 90)
    ball = ThreatModel("linf", 0.03)
    whole = native_autoattack(model, x, y, ball, seed=2)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))[:37]
    shard = native_autoattack(model, x[order], y[order], ball, seed=2, index=order, batch_size=1)
    assert torch.equal(shard.x, whole.x[order])
    assert torch.equal(shard.broken_by, whole.broken_by[order])
    assert torch.equal(shard.distance, whole.distance[order])


@pytest.mark.slow
def test_what_is_remembered_is_not_run_again():
    model = network(classes=10)
    x, y = examples(model, 40)
    ball = ThreatModel("linf", 0.03)
    kept, computed = {}, []

    def cache(name, compute):
        if name not in kept:
            computed.append(name)
            kept[name] = compute()
        return kept[name]

    runner = Runner(model, torch.device("cpu"))
    first = native_autoattack(runner, x, y, ball, cache=cache)
    assert [name.rsplit("-", 2)[0] for name in computed] == list(first.accuracies)
    computed.clear()
    before = runner.forwards
    again = native_autoattack(runner, x, y, ball, cache=cache)
    assert computed == []
    assert runner.forwards - before == len(x)
    assert torch.equal(first.x, again.x)
    assert torch.equal(first.broken_by, again.broken_by)
    assert (first.forwards, first.backwards) == (again.forwards, again.backwards)
    assert first.diagnostics == again.diagnostics


@pytest.fixture
def short(monkeypatch):
    """AutoAttack with few steps."""
    for run, how in ((apgd, {"steps": 8}), (fab, {"steps": 3}), (square, {"queries": 20})):
        monkeypatch.setattr(ensemble, run.__name__, partial(run, **how))


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_a_coarse_search_ends_with_apgd_in_float32(short, version):
    """What a blunt search leaves stands only if APGD-CE in float32 does not break it."""
    model = network(classes=10)
    x, y = examples(model, 24)
    ball, cpu, kept = ThreatModel("linf", 0.05), torch.device("cpu"), {}
    blunt = Runner(Quantised(model), cpu, precision="bf16")
    judge = Runner(model, cpu)

    def cache(name, compute):
        return kept.setdefault(name, None) or kept.update({name: compute()}) or kept[name]

    how = {"version": version, "judge": judge, "seed": 3}
    found = native_autoattack(blunt, x, y, ball, cache=cache, **how)
    *before, last = found.accuracies
    assert last == "apgd-ce-fp32"
    assert (judge.forwards, judge.backwards) == found.passes[last]
    assert found.accuracies[last] < found.accuracies[before[-1]]
    by_it = found.broken_by == len(before)
    restarts = 5 if version == "plus" else 1
    alone = apgd(model, x, y, ball, steps=8, restarts=restarts, seed=3)
    left = found.robust | by_it
    assert torch.equal(found.robust[left], alone.robust[left])
    assert torch.equal(found.x[by_it], alone.x[by_it])
    assert sum(name.startswith(last) for name in kept) == 1
    again = native_autoattack(blunt, x, y, ball, cache=cache, **how)
    assert torch.equal(again.x, found.x)
    assert (judge.forwards, judge.backwards) == found.passes[last]


def test_a_search_in_float32_is_what_it_was_with_a_judge_or_without(short):
    model = network(classes=10)
    x, y = examples(model, 40)
    ball, judge = ThreatModel("linf", 0.03), Runner(model, torch.device("cpu"))
    plain, judged = (native_autoattack(model, x, y, ball, judge=who) for who in (None, judge))
    assert plain.passes == judged.passes
    assert tuple(judged.accuracies) == ("apgd-ce", "apgd-t", "fab-t", "square")
    assert torch.equal(plain.x, judged.x)
    assert judge.forwards == 0


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_fewer_classes_than_targets(classes):
    model = network(classes=classes)
    x, y = examples(model, 24)
    ball = ThreatModel("linf", 0.3)
    found = native_autoattack(model, x, y, ball)
    assert any(f"{classes - 1} targets" in note for note in found.notes)
    assert any("apgd-t is left out" in note for note in found.notes) == (classes < 4)
    assert ("apgd-t" in found.accuracies) == (classes >= 4)
    assert found.diagnostics.targets_missing == 9 - (classes - 1)
    assert not bool(found.robust.any())
    assert not bool(fast(model, x, y, ball).robust.any())


@pytest.mark.slow
@pytest.mark.parametrize("version", ["plus", "rand"])
def test_other_versions_are_no_weaker_than_one_run(version):
    model = network(classes=4)
    x, y = examples(model, 24)
    ball = ThreatModel("linf", 0.05)
    found = native_autoattack(model, x, y, ball, version=version)
    assert bool((found.robust <= apgd(model, x, y, ball).robust).all())
    expected = {
        "plus": ("apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"),
        "rand": ("apgd-ce", "apgd-dlr"),
    }
    assert tuple(found.accuracies) == expected[version]


@pytest.mark.slow
def test_a_saturated_loss_misleads_neither_pgd_nor_the_ensemble():
    """In float32 its cross-entropy is nought; what they climb in its place goes on rising."""
    model = network(classes=10)
    x, y = examples(model)
    ball = ThreatModel("linf", 0.03)
    masked = Saturated(model)
    alone, there = (int(pgd(one, x, y, ball).robust.sum()) for one in (model, masked))
    assert there <= alone + 1
    honest = native_autoattack(model, x, y, ball)
    found = native_autoattack(masked, x, y, ball)
    assert abs(int(found.robust.sum()) - int(honest.robust.sum())) <= 1
    assert found.diagnostics.zero_gradient == 0
    assert found.diagnostics.stuck == 0


@pytest.mark.slow
def test_a_network_without_gradients_is_broken_from_its_logits_alone():
    model = Quantised(network(classes=10))
    x, y = examples(model)
    ball = ThreatModel("linf", 0.07)
    assert torch.equal(apgd(model, x, y, ball, steps=10).zero_gradient, model(x).argmax(1) == y)
    found = native_autoattack(model, x, y, ball)
    assert found.diagnostics.black_box_only > 0.3 * found.diagnostics.attacked
    assert found.diagnostics.zero_gradient > 0.3 * found.diagnostics.attacked
    assert int(found.robust.sum()) < int(pgd(model, x, y, ball).robust.sum())


def test_malt_ranks_as_the_gradients_say():
    model = network(classes=6)
    x, y = examples(model, 20)
    with torch.no_grad():
        logits = model(x)
    jacobian = torch.stack([torch.func.jacrev(lambda z: model(z[None])[0])(one) for one in x])
    for norm, dual in (("linf", 1), ("l2", 2), ("l1", torch.inf)):
        runner = Runner(model, torch.device("cpu"))
        found = by_malt(runner, x, y, logits, 3, norm=norm, candidates=5)
        own = torch.arange(20), y
        slope = (jacobian[own][:, None] - jacobian).flatten(2)
        steep = torch.linalg.vector_norm(slope, ord=dual, dim=2)
        ways = (logits[own][:, None] - logits) / steep.clamp_min(1e-12)
        ways[own] = torch.inf
        assert torch.equal(found, ways.argsort(dim=1)[:, :3])


@pytest.mark.slow
@pytest.mark.parametrize("ball", [("linf", 0.03), ("l2", 0.15), ("l1", 0.6)], ids=lambda b: b[0])
@pytest.mark.parametrize("name", ALONE)
def test_each_attack_alone_is_as_strong_as_the_reference(name, ball):
    """One run each, with other draws: at most one example of 70 worse."""
    model = network(classes=10)
    x, y = examples(model)
    ball = ThreatModel(*ball)
    ours = ALONE[name](model, x, y, ball).robust
    theirs = reference(model, x, y, ball, [name])
    assert int(ours.sum()) <= int(theirs.sum()) + 1
    assert int((ours != theirs).sum()) <= 3


@pytest.mark.slow
def test_a_sample_stands_as_often_as_under_the_reference():
    model = load(SAMPLES / "robust.pt", device="cpu")
    data = load_examples("digits", n=60)
    ball = ThreatModel("linf", 0.15)
    ours = native_autoattack(model, data.x, data.y, ball)
    # FAB and Square break nothing more here, take longest, and are compared one by one above.
    theirs = reference(model, data.x, data.y, ball, ["apgd-ce", "apgd-t"])
    assert abs(int(ours.robust.sum()) - int(theirs.sum())) <= 1
    assert int((ours.robust != theirs).sum()) <= 1
    quick = fast(model, data.x, data.y, ball)
    assert int(quick.robust.sum()) <= int(ours.robust.sum()) + 1
    assert quick.forwards + quick.backwards < 0.13 * 60 * (7857 + 1910)
    for found in (ours, quick):
        assert found.diagnostics.zero_gradient == found.diagnostics.stuck == 0
        assert found.diagnostics.black_box_only == 0


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.skipif(not REAL, reason="ROBAUDIT_REAL_DATA is not set")
@pytest.mark.parametrize("ball", [("linf", 2 / 255), ("l2", 0.25)], ids=lambda b: b[0])
def test_a_real_network_stands_as_often_as_under_the_reference(ball):
    path = Path(REAL) / "checkpoints" / "sdp_cifar_cnn_a_adv.model"
    data = load_examples(str(Path(REAL) / "cifar10_test_first1017.npz"), n=100)
    networks = Path(__file__).parents[1] / "support" / "published_networks.py"
    scale = "0.485,0.456,0.406;0.225,0.225,0.225"
    model = load(path, arch=f"{networks}:cnn_a", normalize=scale, device="cpu", examples=data)
    ball = ThreatModel(*ball)
    with frozen(model):
        runner = Runner(accelerate(model, data.x.shape[1:]).forward, torch.device("cpu"))
        ours = apgd(runner, data.x, data.y, ball).robust
        ours &= apgd(runner, data.x, data.y, ball, loss="dlr", targets=9).robust
    theirs = reference(model, data.x, data.y, ball, ["apgd-ce", "apgd-t"])
    assert int((ours & ~theirs).sum()) == 0
    assert int((theirs & ~ours).sum()) <= 1


@pytest.mark.slow
def test_a_batch_norm_network_on_real_images():
    """A small ball around a few images, where not everything falls."""
    if not REAL:
        pytest.skip("ROBAUDIT_REAL_DATA is not set")
    data = load_examples(str(Path(REAL) / "cifar10_test_first1017.npz"), n=12)
    path = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    model = load(path, device="cpu", normalize="none")
    ball = ThreatModel("linf", 0.5 / 255)
    ours = apgd(model, data.x, data.y, ball, steps=10).robust
    judge = APGDAttack(model, n_iter=10, norm="Linf", eps=ball.eps, seed=0, device="cpu")
    with frozen(model), torch.no_grad():
        theirs = model(judge.perturb(data.x, data.y)).argmax(1) == data.y
    assert int((ours != theirs).sum()) <= 1
    assert 0 < int(ours.sum()) < 12
