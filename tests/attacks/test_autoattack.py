import inspect
import logging

import pytest
import torch
from pyautoattack import AutoAttack
from support import attacks as zoo
from torch import nn

from robaudit.attacks import autoattack, native_autoattack, pgd
from robaudit.types import ThreatModel


def network(classes):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(24, classes),
    ).eval()  # fmt: skip


def examples(model, n=12):
    """Images with the labels that the model gives them, so that all are correct when clean."""
    torch.manual_seed(1)
    x = torch.rand(n, 1, 8, 8)
    with torch.no_grad():
        return x, model(x).argmax(1)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.02), ("l2", 0.1)])
def test_the_same_verdicts_as_the_library_alone(norm, eps):
    model = network(10)
    x, y = examples(model, 6)
    ours = autoattack(model, x, y, ThreatModel(norm, eps), seed=5, batch_size=4)
    alone = AutoAttack(model, norm=norm.capitalize(), eps=eps, seed=5, version="standard")
    adv, predicted = alone.run_standard_evaluation(x, y, batch_size=4)
    assert torch.equal(ours.robust, predicted == y)
    assert torch.equal(ours.x, adv)
    assert ours.accuracies["square"] == pytest.approx(ours.robust.float().mean().item(), abs=1e-4)
    assert list(ours.accuracies) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    with torch.no_grad():
        assert torch.equal(ours.robust, model(ours.x).argmax(1) == y)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_fewer_classes_than_targets(classes):
    model = network(classes)
    with torch.no_grad():  # every class within reach of some image
        model[4].weight.mul_(3)
        x = torch.rand(200, 1, 8, 8)
        model[4].bias.sub_(model(x).mean(0))
    x, y = examples(model, 6)
    found = autoattack(model, x, y, ThreatModel("linf", 0.3))
    assert any(f"{classes - 1} targets" in note for note in found.notes)
    assert any("apgd-t is left out" in note for note in found.notes) == (classes < 4)
    assert not bool(found.robust.any())


class Saturated(nn.Module):
    """Logits so large that the cross-entropy has no gradient; the DLR loss ignores their scale."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return 1e5 * self.network(x)


@pytest.mark.slow
@pytest.mark.parametrize("run", [autoattack, native_autoattack])
def test_three_classes_are_enough_for_untargeted_dlr(run):
    """The library's own DLR loss takes the third largest logit, no fourth one."""
    model = Saturated(network(3))
    x, y = examples(model, 6)
    found = run(model, x, y, ThreatModel("linf", 0.3), version="rand")
    assert list(found.accuracies) == ["apgd-ce", "apgd-dlr"]
    assert not any("target" in note for note in found.notes)
    alone = AutoAttack(model, norm="Linf", eps=0.3, seed=0, version="rand")
    _, predicted = alone.run_standard_evaluation(x, y, batch_size=6)
    assert found.accuracies["apgd-dlr"] == float((predicted == y).float().mean())
    # The library's cross-entropy ends at nought in float32; ours goes on rising there.
    if run is autoattack:
        assert found.accuracies["apgd-dlr"] < found.accuracies["apgd-ce"]
    else:
        assert found.accuracies["apgd-ce"] == 0


def test_it_leaves_no_trace():
    model = network(4).train()
    x, y = examples(network(4), 4)
    logger = logging.getLogger("auto-attack")
    before = (logger.level, logger.propagate, list(logger.handlers))
    torch.manual_seed(123)
    expected = torch.rand(3)
    torch.manual_seed(123)
    found = autoattack(model, x, y, ThreatModel("linf", 0.3))
    assert torch.equal(torch.rand(3), expected)  # the caller's random state
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert (logger.level, logger.propagate, list(logger.handlers)) == before
    assert found.forwards > found.backwards > 0


@pytest.mark.slow
def test_it_is_never_above_pgd_by_more_than_the_examples_it_lost():
    """Whatever PGD breaks on this network AutoAttack breaks as well."""
    model = network(6)
    x, y = examples(model, 30)
    threat = ThreatModel("linf", 0.1)
    assert bool((autoattack(model, x, y, threat).robust <= pgd(model, x, y, threat).robust).all())


def test_the_library_searches_in_the_default_arithmetic_and_the_verdict_is_in_float32(monkeypatch):
    """As the library runs alone; in TF32 a break may be one of rounding."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 10))
    seen = {True: 0, False: 0}

    class Watched(nn.Module):
        def forward(self, x):
            inside = any("pyautoattack" in frame.filename for frame in inspect.stack())
            assert torch.backends.cudnn.allow_tf32 is inside
            assert torch.backends.cudnn.deterministic is not inside
            seen[inside] += 1
            return net(x)

    x = torch.rand(6, 1, 2, 2)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    threat = ThreatModel("linf", 0.9)  # the first attack breaks all
    autoattack(Watched(), x, net(x).argmax(1), threat, faster=False)
    assert min(seen.values()) > 0
    assert not torch.backends.cudnn.allow_tf32


class Passes(nn.Module):
    """Counts the images that pass, forwards and backwards."""

    def __init__(self, net):
        super().__init__()
        self.net, self.forwards, self.backwards, self.calls = net, 0, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        self.calls += 1
        logits = self.net(x)
        if logits.requires_grad:
            logits.register_hook(self.back)
        return logits

    def back(self, gradient):
        self.backwards += len(gradient)


@pytest.fixture
def short(monkeypatch):
    """The library with few steps, queries and targets."""
    plain = AutoAttack.__init__

    def few(self, *args, **how):
        plain(self, *args, **how)
        self.apgd.n_iter = self.apgd_targeted.n_iter = self.fab.n_iter = 4
        self.square.n_queries = 40
        self.apgd.eot_iter = min(self.apgd.eot_iter, 2)
        self.apgd_targeted.n_target_classes = self.fab.n_target_classes = 2

    monkeypatch.setattr(AutoAttack, "__init__", few)


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_it_takes_the_librarys_passes_and_a_few_that_judge(short, version):
    """And gives its verdicts and its points, every attack of it, for the same batches."""
    net = zoo.network(classes=10)
    x, y = zoo.examples(net, 18)
    threat = ThreatModel("linf", 0.03)
    given, within, tile = Passes(net), Passes(net), 64
    ours = autoattack(given, x, y, threat, version=version, seed=4, batch_size=8, faster=False)
    alone = AutoAttack(within, norm="Linf", eps=0.03, seed=4, version=version)
    adv, predicted = alone.run_standard_evaluation(x, y, batch_size=8)
    assert torch.equal(ours.robust, predicted == y)
    assert torch.equal(ours.x, torch.where(ours.correct[:, None, None, None], adv, x))
    assert 0 < int(ours.robust.sum()) < int(ours.correct.sum())
    # The library passes all clean images, robaudit those of the first batch, for its checks.
    assert ours.forwards == within.forwards - len(x) + 8
    assert ours.backwards == within.backwards
    # Others judge in tiles of 64: clean images, and the breaks of a batch. Few look for edges.
    batches = 1 + 3 * len(ours.accuracies)
    assert tile <= given.forwards - ours.forwards <= tile * (batches + 1)
