"""Several devices have the numbers of one; two threads of the CPU stand for two devices."""

import signal
import threading
import time

import pytest
import torch
from support.attacks import ATTACKS, examples, network
from support.recorders import Again, noted_threads
from torch import nn

from robaudit import attacks
from robaudit.attacks import square_skips
from robaudit.attacks.objectives import margin, targeted_margin
from robaudit.engine import (
    Runner,
    accelerate,
    captured,
    device_of,
    devices_of,
    frozen,
    spread,
    voted,
)
from robaudit.engine.several import over_devices, replica
from robaudit.errors import Interrupted, NotMeasuredError
from robaudit.flatness.stacked import StackedRunner, moved_to
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
BALL, LARGE = ThreatModel("linf", 0.08), ThreatModel("linf", 0.5)
FIELDS = ("x", "loss", "robust", "correct", "broken_x", "nearest", "reached", "stuck")


@pytest.fixture
def threads(monkeypatch):
    return noted_threads(monkeypatch)


def two(model=None):
    return spread(network() if model is None else model, (CPU, CPU))


def same(one, other):
    assert (one.forwards, one.backwards) == (other.forwards, other.backwards)
    compared = 0
    for name in FIELDS:
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert torch.equal(mine.nan_to_num(7.0), theirs.nan_to_num(7.0)), name
            compared += 1
    assert compared >= 4


ALL = {
    **ATTACKS,
    "pgd": lambda *a, **k: attacks.pgd(*a, steps=5, restarts=2, **k),
    "pgd-accuracy": lambda *a, **k: attacks.pgd(*a, steps=5, mode="accuracy", **k),
    "fast": lambda m, x, y, _, **k: attacks.fast(m, x, y, ThreatModel("linf", 0.2), **k),
    "autoattack": lambda m, x, y, _, **k: attacks.native_autoattack(m, x, y, LARGE, **k),
}


@pytest.mark.parametrize("name", ALL)
def test_attacks(name, threads):
    x, y = examples(network(), 70)
    alone = ALL[name](network(), x, y, BALL, seed=3)
    assert threads == {"MainThread"}
    same(ALL[name](two(), x, y, BALL, seed=3), alone)
    assert len(threads) == 2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("recorded", [False, True])
def test_square_in_steps(norm, recorded, threads, monkeypatch):
    monkeypatch.setattr(square_skips, "_REMEMBERED", 0)
    x, y = examples(network(), 100)
    ball = ThreatModel(norm, {"linf": 0.03, "l2": 0.2, "l1": 0.7}[norm])
    alone = attacks.square(network(), x, y, ball, queries=60)
    assert threads == {"MainThread"}
    if recorded:
        monkeypatch.setattr(captured, "recorder_for", lambda device: Again())
    same(attacks.square(two(), x, y, ball, queries=60), alone)
    assert len(threads) == 2
    assert 0 < int(alone.robust.sum()) < len(x)


def test_logits_come_in_order_from_any_number_of_devices(threads):
    x, _ = examples(network(), 5 * 64 + 3)
    alone = Runner(network(), CPU).logits(x)
    for count in (2, 3, 7):
        shared = Runner(spread(network(), (CPU,) * count), CPU)
        assert torch.equal(shared.logits(x), alone)
        assert shared.forwards == len(x)
        assert not shared.notes
    assert len(threads) == 6  # six tiles


@pytest.mark.parametrize("many", [1, 2])
def test_networks_at_other_weights_are_copied_with_them(many):
    x, _ = examples(network(), 200)
    places = [
        {name: (1 + at) * p.detach() for name, p in network().named_parameters()}
        for at in range(many)
    ]

    def logits(model):
        forward = moved_to(model, places)
        if many == 1:
            return Runner(forward, CPU).logits(x)
        return StackedRunner(forward, many, CPU).logits(x.repeat_interleave(many, 0))

    with frozen(network()) as alone, frozen(two()) as shared:
        assert torch.equal(logits(shared), logits(alone))


def test_passes_are_recorded_on_every_device(monkeypatch):
    made = []
    monkeypatch.setattr(captured, "recorder_for", lambda device: made.append(Again()) or made[-1])
    x, y = examples(network(), 130)
    runner, alone = Runner(two(), CPU), Runner(lambda images: network()(images), CPU)
    for _ in range(8):
        for one, other in zip(
            runner.gradient(margin, x, y), alone.gradient(margin, x, y), strict=True
        ):
            assert torch.equal(one, other)
    assert [recorder.replayed > 2 for recorder in made if recorder.recorded] == [True, True]


def test_labels_with_targets_are_padded_as_images_are():
    x, y = examples(network(), 70)
    labels = torch.stack([y, (y + 1) % 5], 1)
    values, _, logits = Runner(network(), CPU).gradient(targeted_margin, x, labels)
    assert torch.equal(values, targeted_margin(logits, labels))


def test_forms_of_a_network_run_where_it_does():
    model = two()
    assert devices_of(accelerate(model, (1, 8, 8)).forward) == (CPU, CPU)
    assert devices_of(replica(model, CPU)) == (CPU, CPU)


def test_copies_follow_weights_that_change():
    model, x = two(), examples(network(), 128)[0]
    runner = Runner(model, CPU)
    runner.logits(x)
    with torch.no_grad():
        model[0].weight.mul_(2)
        model[1].running_mean.add_(0.1)
    assert torch.equal(runner.logits(x), Runner(model, CPU).logits(x))
    model[0].weight = nn.Parameter(model[0].weight.detach() / 3)
    alone = network()
    alone.load_state_dict(model.state_dict())
    assert torch.equal(runner.logits(x), Runner(alone, CPU).logits(x))


class Raising(nn.Module):
    """Raises for images of one kind, which the second device has."""

    def __init__(self, error):
        super().__init__()
        self.error, self.inner = error, network()

    def forward(self, x):
        if float(x.min()) > 1:
            raise self.error
        return self.inner(x)


@pytest.mark.parametrize(
    "error", [RuntimeError("mine"), NotMeasuredError("mine"), SystemExit(3), MemoryError("mine")]
)
def test_what_a_thread_raises_comes_out_as_it_is(error):
    runner = Runner(two(Raising(error)), CPU)
    x = torch.cat([torch.zeros(64, 1, 8, 8), torch.full((64, 1, 8, 8), 2.0)])
    with pytest.raises(type(error)) as caught:
        runner.logits(x)
    assert type(caught.value) is type(error)
    assert str(caught.value) == str(error)
    runner.logits(x[:64].repeat(4, 1, 1, 1))  # and nothing hangs


def test_the_first_of_several_exceptions():
    def run(at, piece):
        time.sleep(0.02 * (4 - piece))
        raise ValueError(piece)

    with pytest.raises(ValueError, match="0"):
        list(over_devices((CPU,) * 4, range(4), run))


def test_an_interrupt_ends_all_threads():
    ended = threading.Event()

    def run(at, _):
        if at == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.1)
        ended.set()

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        list(over_devices((CPU, CPU), range(2), run))
    assert ended.is_set()
    assert list(over_devices((CPU, CPU), range(3), lambda _, piece: piece)) == [0, 1, 2]


def test_threads_are_as_the_caller():
    def found(_, __):
        state = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
        return *state, torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        for count in (2, 1, 3):
            torch.set_num_threads(count)
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                states = list(over_devices((CPU, CPU), range(2), found))
            assert states == [(False, True, count)] * 2
            assert list(over_devices((CPU, CPU), range(2), found))[1] == (True, False, count)
    finally:
        torch.set_num_threads(before)


class Locked(nn.Sequential):
    def __init__(self):
        super().__init__(*network())
        self.lock = threading.Lock()  # which cannot be copied


class Noisy(nn.Sequential):
    def forward(self, x):
        logits = super().forward(x)
        return logits + torch.rand_like(logits)


class Elsewhere(nn.Sequential):
    """Gives other logits in a copy."""

    def __deepcopy__(self, memo):
        return network(seed=5)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (Locked(), "copying the network raises TypeError"),
        (Noisy(*network()), "passes of the same images differ"),
        (Elsewhere(*network()), "gives other logits"),
        (voted(Noisy(*network()), torch.zeros(4, 1, 8, 8)), "draws at random"),
    ],
    ids=["locked", "noisy", "elsewhere", "voted"],
)
def test_networks_that_stay_on_one_device(model, said, threads):
    x, _ = examples(network(), 128)
    before = torch.get_rng_state()
    runner = Runner(two(model), CPU)
    runner.logits(x[:64])
    runner.batch = 64
    runner.logits(x)
    assert threads == {"MainThread"}
    assert len(runner.notes) == 1
    assert said in runner.notes[0]
    assert runner.devices == (CPU,)
    if not isinstance(model, Noisy):
        assert torch.equal(torch.get_rng_state(), before)


def test_memory_that_runs_out_on_one_device_makes_all_passes_smaller():
    class Full(nn.Sequential):
        def forward(self, x):
            if len(x) > 64 and threading.current_thread() is not threading.main_thread():
                raise torch.cuda.OutOfMemoryError("full")
            return super().forward(x)

    x, _ = examples(network(), 400)
    runner = Runner(two(Full(*network())), CPU)
    runner.batch = 256
    alone = Runner(network(), CPU).logits(x)
    assert torch.allclose(runner.logits(x), alone, atol=1e-5)
    assert (runner.batch, runner.backoffs) == (64, [256, 128])


def test_a_model_that_was_moved_is_alone():
    model = two()
    assert Runner(model, device_of(model)).per_round == 128
    assert Runner(network(), CPU).per_round == 64
