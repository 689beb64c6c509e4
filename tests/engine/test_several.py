"""Several devices have the numbers of one; two threads of the CPU stand for two devices."""

import signal
import threading
import time
import warnings

import pytest
import torch
from support.attacks import ATTACKS, examples, network
from support.recorders import Again
from torch import nn

from robaudit import attacks, curvature, flatness
from robaudit.attacks import square_skips
from robaudit.attacks.objectives import margin, targeted_margin
from robaudit.curvature.products import block_products, gauss_newton_product, hessian_product
from robaudit.engine import (
    Runner,
    accelerate,
    captured,
    device_of,
    devices_of,
    frozen,
    several,
    spread,
    voted,
)
from robaudit.engine.captured import Captured
from robaudit.engine.several import over_devices, replica
from robaudit.errors import Interrupted, NotMeasuredError
from robaudit.flatness.joint_ascent import JointAscent
from robaudit.flatness.stacked import StackedRunner, moved_to
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
BALL, LARGE = ThreatModel("linf", 0.08), ThreatModel("linf", 0.5)
FIELDS = ("x", "loss", "robust", "correct", "broken_x", "nearest", "reached", "stuck")


@pytest.fixture
def threads(monkeypatch):
    """The names of the threads that ran a network."""
    seen = set()
    for name in ("logits", "pair", "plain"):
        usual = getattr(Captured, name)

        def noted(self, tile, usual=usual):
            seen.add(threading.current_thread().name)
            return usual(self, tile)

        monkeypatch.setattr(Captured, name, noted)
    return seen


@pytest.fixture
def rounds(monkeypatch):
    """How many pieces each round had."""
    seen, usual = [], several._at_once

    def counted(devices, work):
        seen.append(len(work))
        return usual(devices, work)

    monkeypatch.setattr(several, "_at_once", counted)
    return seen


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


def test_flatness_shares_perturbed_networks(threads):
    x, y = examples(network(), 300)
    how = {"perturbations": 3, "steps": 2, "seed": 1}
    alone = flatness.average(network(), x, y, BALL, **how)
    assert threads == {"MainThread"}
    shared = flatness.average(two(), x, y, BALL, **how)
    assert (shared.value, shared.perturbed) == (alone.value, alone.perturbed)
    assert len(threads) == 2


@pytest.mark.parametrize(
    ("protocol", "precision"),
    [("default", "fp32"), ("default", "bf16"), ("stutz2021", "fp32"), ("stutz2021-text", "fp32")],
)
def test_worst_case_flatness_shares_restarts(protocol, precision, rounds, monkeypatch):
    x, y = examples(network(), 150)
    where, usual = set(), JointAscent._pass

    def noted(self, *args, **kwargs):
        where.add(threading.current_thread().name)
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(JointAscent, "_pass", noted)
    how = {"passes": 2, "restarts": 3, "steps": 2, "xi": 0.05, "seed": 2}
    how |= {"protocol": protocol, "precision": precision}
    alone = flatness.worst(network(), x, y, BALL, **how)
    assert where == {"MainThread"}
    told = []
    shared = flatness.worst(two(), x, y, BALL, **how, progress=lambda *done: told.append(done))
    assert len(where) == 2
    assert (shared.value, shared.restarts) == (alone.value, alone.restarts)
    assert (shared.searched, shared.nu.keys()) == (precision, alone.nu.keys())
    assert all(torch.equal(moved, alone.nu[name]) for name, moved in shared.nu.items())
    assert told[-3:] == [(2, 6), (4, 6), (6, 6)]


def test_adaptive_sharpness_shares_groups_and_images(rounds):
    x, y = examples(network(), 150)
    told = []

    def found(model):
        worst = flatness.adaptive_worst(
            model, x, y, m=40, steps=2, progress=lambda *done: told.append(done)
        )
        average = flatness.adaptive_average(model, x, y, perturbations=2)
        return worst.groups, worst.value, average.value, average.perturbed

    alone, begun = found(network()), len(told)
    assert not rounds or set(rounds) == {1}
    assert found(two()) == alone
    assert rounds.count(2) >= 2 + 3  # of four groups; of three networks with three tiles each
    for some in (told[:begun], told[begun:]):
        assert some == sorted(some)
        assert some[-1] == (150, 150)


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


@pytest.mark.parametrize("kind", ["hessian", "gauss-newton", "blocks"])
def test_products_of_curvature_matrices(kind, monkeypatch):
    x, y = examples(network(), 200)
    size = sum(p.numel() for p in network().parameters())
    v = torch.randn(size, generator=torch.Generator().manual_seed(0))
    names = set()
    usual = torch.autograd.grad

    def noted(*args, **kwargs):
        names.add(threading.current_thread().name)
        return usual(*args, **kwargs)

    monkeypatch.setattr("torch.autograd.grad", noted)

    def product(model):
        with frozen(model):
            if kind == "blocks":
                return block_products(model, x, y, v)
            if kind == "hessian":
                return hessian_product(model, x, y)(v)
            return gauss_newton_product(model, x)(v)

    alone = product(network())
    assert names == {"MainThread"}
    assert torch.equal(product(two()), alone)
    assert len(names) == 2


class Attending(nn.Module):
    """An attention whose projections are measured one example at a time, and a convolution."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.head = nn.Conv2d(1, 8, 4, stride=4), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


TRACES = {
    "exact": (network, {"estimator": "exact"}),
    "bf16": (network, {"estimator": "exact", "precision": "bf16"}),
    "float64": (network, {"precision": "float64"}),
    "gauss-newton": (network, {"estimator": "gauss-newton"}),
    "hessian": (network, {"estimator": "hessian"}),
    "attention": (Attending, {}),
    "attention, exact": (Attending, {"estimator": "exact"}),
}


@pytest.mark.parametrize("name", TRACES)
def test_traces(name, rounds):
    make, how = TRACES[name]
    x, y = examples(network(), 160 if name == "bf16" else 70)
    alone = curvature.layer_traces(make(), x, y, **how)
    assert not rounds or set(rounds) == {1}
    filters = list(warnings.filters)
    shared = curvature.layer_traces(two(make()), x, y, **how)
    assert warnings.filters == filters
    assert 2 in rounds
    assert torch.equal(shared.per_example, alone.per_example)
    assert (shared.layers, shared.precision) == (alone.layers, alone.precision)
    if name == "bf16":
        assert (shared.precision, rounds[-2:]) == ("bf16", [2, 2])


def test_spectra_of_networks_that_are_copied_first():
    """Weight norm is made plain, in a copy that runs on the same devices."""
    x, y = examples(network(), 130)

    def model():
        made = network()
        made[0] = nn.utils.parametrizations.weight_norm(made[0])
        return made

    how = {"top": 2, "seed": 1}
    alone, shared = (curvature.spectrum(m, x, y, **how) for m in (model(), two(model())))
    assert (shared.largest, shared.smallest, shared.trace) == (
        alone.largest,
        alone.smallest,
        alone.trace,
    )
