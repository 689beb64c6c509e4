"""Parts of a batch beside each other give what each gives alone, bit for bit."""

import threading
import time

import pytest
import torch
from torch import nn

from robaudit.engine import Runner, accelerate, parallel
from robaudit.engine.parallel import IN_PARALLEL, Parallel, runs_in_parts

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def convolutional():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2), nn.ReLU(),
        nn.Flatten(), nn.Linear(144, 5),
    ).eval().requires_grad_(False)  # fmt: skip


def images(n):
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(n))


def both(network, x):
    """Logits, and the gradient of a sum of them."""
    leaf = x.clone().requires_grad_()
    logits = network(leaf)
    return logits.detach(), torch.autograd.grad(logits.square().sum(), leaf)[0]


@pytest.mark.parametrize("unit", [64, 32, 7])
@pytest.mark.parametrize("n", [1, 40, 64, 130])
def test_each_part_is_as_if_it_were_alone(unit, n):
    network = convolutional()
    x = images(n)
    beside = both(Parallel(network, unit), x)
    alone = [both(network, part) for part in x.split(unit)]
    for found, parts in zip(beside, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(parts), rtol=0, atol=1e-6)
    again = both(Parallel(network, unit), x)
    assert all(torch.equal(a, b) for a, b in zip(beside, again, strict=True))
    with torch.no_grad():
        assert torch.equal(Parallel(network, unit)(x), beside[0])
    assert torch.get_num_threads() == 2


@pytest.fixture
def large(monkeypatch):
    """Every network counts as large."""
    monkeypatch.setattr(parallel, "_LARGE", 0)


def test_a_runners_results_do_not_depend_on_the_neighbours(large):
    found = accelerate(convolutional(), (3, 8, 8))
    assert found.used[-1] == IN_PARALLEL
    x, y = images(150), torch.arange(150) % 5

    def objective(logits, labels):
        return -logits[torch.arange(len(labels)), labels]

    runner = Runner(found.forward, CPU)
    whole = runner.gradient(objective, x, y)
    shuffle = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    other = runner.gradient(objective, x[shuffle], y[shuffle])
    single = [runner.gradient(objective, x[i : i + 1], y[i : i + 1]) for i in range(0, 150, 30)]
    for k in range(3):
        assert torch.equal(whole[k][shuffle], other[k])
        assert torch.equal(whole[k][::30], torch.cat([found[k] for found in single]))


class Forgetful(nn.Module):
    """Keeps its input where another pass at the same time would overwrite it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(192, 4)
        self.seen = None

    def forward(self, x):
        self.seen = x.flatten(1)
        time.sleep(0.01)
        return self.head(self.seen)


def test_what_a_pass_keeps_in_the_network_is_its_own():
    network = Forgetful().eval().requires_grad_(False)
    x = images(256)
    with torch.no_grad():
        assert torch.equal(Parallel(network, 64)(x), network(x))


def test_the_copies_share_the_weights():
    network = convolutional()
    beside = Parallel(network, 64)
    with torch.no_grad():
        network[0].weight.mul_(2)
    x = images(128)
    assert torch.equal(both(beside, x)[1], both(network, x)[1])
    assert len({id(p) for p in beside.parameters()}) == len(list(network.parameters()))


class Drawing(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = convolutional()

    def forward(self, x):
        return self.network(x + 0.01 * torch.randn_like(x))


def hooked():
    network = convolutional()
    network[1].register_forward_hook(lambda *_: None)
    return network


def scripted():
    return torch.jit.script(convolutional())


@pytest.mark.parametrize("make", [Drawing, hooked, scripted])
def test_networks_whose_passes_could_meet_run_one_after_the_other(make, large):
    assert IN_PARALLEL not in accelerate(make().eval(), (3, 8, 8)).used


def test_a_lane_has_its_own_number_of_threads():
    beside = Parallel(nn.Identity(), 64)
    for _ in range(3):
        found = beside.each(lambda i, _: (torch.rand(99, 99) @ torch.rand(99, 99), i), 6)
        assert [i for _, i in found] == list(range(6))
        assert beside.each(lambda *_: torch.get_num_threads(), 6) == [1] * 6
    assert torch.get_num_threads() == 2


def test_one_thread_and_small_networks_have_one_lane():
    assert runs_in_parts(convolutional(), 1e7)
    assert not runs_in_parts(convolutional(), 1e6)
    torch.set_num_threads(1)
    assert not runs_in_parts(convolutional(), 1e7)


class Threaded(nn.Module):
    """Computes something else off the main thread."""

    def __init__(self):
        super().__init__()
        self.network = convolutional()

    def forward(self, x):
        main = threading.current_thread() is threading.main_thread()
        return self.network(x) * (1 if main else 2)


def test_a_network_that_minds_the_thread_is_found_out(large):
    found = accelerate(Threaded().eval(), (3, 8, 8))
    assert IN_PARALLEL not in found.used
    assert any("parts do not run in parallel: its logits differ" in note for note in found.notes)


class Failing(nn.Module):
    def forward(self, x):
        raise ValueError("not today")


def test_an_error_in_a_part_is_the_passes_own():
    with pytest.raises(ValueError, match="not today"):
        Parallel(Failing(), 64)(images(130))


def test_second_derivatives_are_refused():
    x = images(4).requires_grad_()
    logits = Parallel(convolutional(), 2)(x)
    (slope,) = torch.autograd.grad(logits.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(slope.sum(), x)
