"""Several perturbed networks in one pass against the same ones one after the other."""

import pytest
import torch
from support.console import ROBUST
from torch import nn

import robaudit as ra
from robaudit.engine import frozen
from robaudit.errors import NotMeasuredError
from robaudit.flatness import (
    Adversary,
    around,
    average,
    between,
    landscape,
    landscape_plane,
    places_between,
    random_direction,
    symmetric_places,
    worst,
)
from robaudit.flatness.losses import RobustLoss
from robaudit.flatness.perturbed import Perturbed
from robaudit.flatness.stacked import Blocks, StackedRunner
from robaudit.flatness.weights import draw_for, movable_weights, on_sphere
from robaudit.types import ThreatModel

CPU = torch.device("cpu")
LINF = ThreatModel("linf", 0.1)
# In float64 only the order of sums differs. In float32 that turns signs of gradients near zero,
# and with them pixels by a step: a mean loss moves in its fifth digit.
SAME = {torch.float64: 1e-9, torch.float32: 1e-4}


def plain():
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3))


def normed():
    """A batch norm that folds into its convolution, and one behind a nonlinearity that does not."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3),
    )  # fmt: skip


def made(kind, dtype=torch.float64):
    torch.manual_seed(0)
    model = kind()
    model(torch.rand(32, 1, 6, 6))  # running statistics that are not 0 and 1
    torch.manual_seed(1)
    x, y = torch.rand(20, 1, 6, 6), torch.randint(3, (20,))
    return model.to(dtype).eval(), x.to(dtype), y


@pytest.mark.parametrize("dtype", SAME)
@pytest.mark.parametrize("kind", [plain, normed])
def test_the_average_is_the_same(kind, dtype):
    model, x, y = made(kind, dtype)
    options = {"perturbations": 4, "steps": 4, "restarts": 2}
    alone = average(model, x, y, LINF, **options)
    together = average(model, x, y, LINF, stack=3, **options)
    assert together.perturbed == pytest.approx(alone.perturbed, rel=SAME[dtype])
    assert together.value == pytest.approx(alone.value, rel=10 * SAME[dtype])
    assert together.notes == ()


@pytest.mark.parametrize("threat", [None, ThreatModel("l2", 0.5), ThreatModel("l1", 2.0)])
def test_every_example_is_attacked_in_its_own_ball(threat):
    """Each loss of each network, over more images than one pass takes."""
    model, _, _ = made(normed)
    torch.manual_seed(2)
    x, y = torch.rand(260, 1, 6, 6).double(), torch.randint(3, (260,))
    loss = RobustLoss(x, y, threat, 3, 0.2, 0, None, CPU, "auto")
    with frozen(model):
        weights = movable_weights(model)
        network = Perturbed(model, weights, x.shape[1:])
        nus = [on_sphere(weights, 0.5, draw_for(0, "t", j)) for j in range(3)]
        together = loss.of_all(network.at(*nus), 3)
        for nu, losses in zip(nus, together, strict=True):
            torch.testing.assert_close(losses, loss.of(network.at(nu)), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("protocol", ["default", "stutz2021"])
@pytest.mark.parametrize("threat", [LINF, None])
@pytest.mark.parametrize("kind", [plain, normed])
def test_the_worst_case_is_the_same(kind, threat, protocol):
    model, x, y = made(kind)
    options = {"xi": 0.02, "steps": 3, "passes": 4, "restarts": 4, "protocol": protocol}
    alone = worst(model, x, y, threat, **options)
    together = worst(model, x, y, threat, stack=3, **options)
    assert together.restarts == pytest.approx(alone.restarts, rel=1e-9)
    assert together.value == pytest.approx(alone.value, rel=1e-8)
    for name, nu in alone.nu.items():
        torch.testing.assert_close(together.nu[name], nu, rtol=1e-8, atol=1e-12)


def test_the_worst_case_in_float32():
    model, x, y = made(normed, torch.float32)
    options = {"xi": 0.02, "steps": 3, "passes": 4, "restarts": 3}
    alone = worst(model, x, y, LINF, **options)
    together = worst(model, x, y, LINF, stack=3, **options)
    assert together.restarts == pytest.approx(alone.restarts, rel=1e-4)


@pytest.mark.parametrize("fixed", [False, True])
def test_landscapes_are_the_same(fixed):
    model, x, y = made(normed)
    other, _, _ = made(normed)
    with torch.no_grad():
        for tensor in [*other.parameters(), *other.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1.2)
    how = {"adversary": Adversary(steps=3, fixed=fixed)}
    lines = [around(model, random_direction(model, which=j)) for j in range(2)]
    s = symmetric_places(3)
    for family in (lines, [between(model, other)]):  # batch norm's statistics move in the second
        alone = landscape(model, family, s, x, y, LINF, **how)
        together = landscape(model, family, s, x, y, LINF, stack=4, **how)
        torch.testing.assert_close(together.robust, alone.robust, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.clean, alone.clean, rtol=1e-9, atol=1e-12)


def test_planes_are_the_same():
    model, x, y = made(plain)
    others = [plain().double(), plain().double()]
    s, t = places_between(3), places_between(5)
    alone, together = (
        landscape_plane(
            model, between(model, *others), s, t, x, y, LINF, adversary=Adversary(steps=2), stack=k
        )
        for k in (1, 4)
    )
    assert alone.clean.shape == (5, 3, 20)
    torch.testing.assert_close(together.clean, alone.clean, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(together.robust, alone.robust, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stack", [2, 3, 4, 12])
def test_when_drawing_stops_does_not_depend_on_it(stack):
    model, x, y = made(plain)
    options = {"perturbations": 12, "steps": 2, "xi": 0.2}
    whole = average(model, x, y, LINF, **options)
    errors = [
        average(model, x, y, LINF, **(options | {"perturbations": k})).standard_error
        for k in range(5, 13)
    ]
    limit = sorted(errors)[2]  # reached at some draw in the middle
    alone = average(model, x, y, LINF, tolerance=limit, **options)
    assert 5 <= len(alone.perturbed) < 12
    together = average(model, x, y, LINF, tolerance=limit, stack=stack, **options)
    assert together.perturbed == pytest.approx(alone.perturbed, rel=1e-9)
    assert alone.perturbed == whole.perturbed[: len(alone.perturbed)]


def test_what_is_beyond_the_stop_is_not_looked_at():
    """Draws that overflow after it change nothing; before it they are refused."""
    calls = []

    def run(block):
        calls.append(block)
        return list(block)

    found = Blocks(4, CPU, str).over(10, run)
    assert [next(found) for _ in range(6)] == list(range(6))
    found.close()
    assert calls == [range(4), range(4, 8)]


class InPlace(nn.Module):
    """Writes its own weights into a tensor that all networks share."""

    def __init__(self):
        super().__init__()
        self.net = plain()
        self.register_buffer("kept", torch.zeros(8, 36))

    def forward(self, x):
        self.kept.copy_(self.net[1].weight.detach())
        return self.net(x)


class Reading(nn.Module):
    """Looks at a number of its weights."""

    def __init__(self):
        super().__init__()
        self.net = plain()

    def forward(self, x):
        return self.net(x) * (1 if float(self.net[1].weight.detach()[0, 0]) < 10 else 2)


def hooked():
    model = plain()
    model[2].register_forward_hook(lambda _, __, out: out * (1 + 0 * out.detach().max().item()))
    return model


@pytest.mark.parametrize("kind", [InPlace, Reading, hooked])
@pytest.mark.parametrize("measure", [average, worst])
def test_a_network_that_cannot_runs_one_at_a_time(measure, kind):
    model, x, y = made(kind)
    options = {"steps": 2} | ({"restarts": 3} if measure is worst else {"perturbations": 3})
    together = measure(model, x, y, LINF, stack=3, **options)
    assert together.value == measure(model, x, y, LINF, **options).value
    assert "one at a time" in together.notes[0]


def test_so_does_its_landscape():
    model, x, y = made(Reading)
    line, s = around(model, random_direction(model)), symmetric_places(3)
    how = {"adversary": Adversary(steps=2)}
    alone = landscape(model, [line], s, x, y, LINF, **how)
    together = landscape(model, [line], s, x, y, LINF, stack=3, **how)
    assert torch.equal(together.robust, alone.robust)
    assert "one at a time" in together.notes[0]


def test_a_network_that_computes_something_else_in_company_is_noticed():
    class Louder(nn.Module):
        """Answers twice as loudly where its weights are several networks'."""

        def __init__(self):
            super().__init__()
            self.net = plain()

        def forward(self, x):
            several = torch._C._functorch.is_batchedtensor(self.net[1].weight)
            return self.net(x) * (2 if several else 1)

    model, x, y = made(Louder)
    found = average(model, x, y, LINF, stack=2, steps=1, perturbations=2)
    assert "its logits differ" in found.notes[0]


def test_half_as_many_go_on_when_memory_runs_out():
    sizes = []

    def run(block):
        sizes.append(len(block))
        if len(block) > 2:
            raise torch.cuda.OutOfMemoryError
        return list(block)

    blocks = Blocks(8, CPU, str)
    assert list(blocks.over(7, run)) == list(range(7))
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert blocks.notes[0].startswith("memory ran out with 7 networks in a pass; they went on with")

    def never(block):
        raise torch.cuda.OutOfMemoryError

    with pytest.raises(torch.cuda.OutOfMemoryError):
        list(Blocks(8, CPU, str).over(3, never))


def test_passes_are_counted_in_images():
    runner = StackedRunner(lambda x: x.flatten(2)[..., :3], 3, CPU)
    runner.logits(torch.rand(15, 1, 2, 2))
    assert runner.forwards == 15


@pytest.mark.parametrize("measure", [average, worst])
def test_the_model_is_left_bit_for_bit(measure):
    model, x, y = made(normed)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    measure(model, x, y, LINF, steps=2, stack=3)
    with pytest.raises(KeyboardInterrupt):
        measure(model, x, y, LINF, steps=2, stack=3, progress=stop)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("measure", [average, worst])
def test_progress_ends_at_the_whole(measure):
    model, x, y = made(plain)
    told = []
    measure(
        model, x, y, LINF, steps=2, stack=3,
        progress=lambda done, total: told.append(done / total),
    )  # fmt: skip
    assert told == sorted(told)
    assert told[-1] == 1


def test_losses_that_are_not_finite_are_refused():
    model, x, y = made(plain)
    with torch.no_grad():
        model[3].weight.mul_(1e200)
    with pytest.raises(NotMeasuredError, match="not finite"):
        average(model, x, y, None, stack=3, xi=1e300)


def test_a_sample_network_has_the_same_flatness():
    model, examples = ra.load(ROBUST, device="cpu"), ra.load_examples("digits", n=64)
    x, y = examples.x, examples.y
    options = {"perturbations": 3, "steps": 5}
    threat = ThreatModel("linf", 0.15)
    alone = average(model, x, y, threat, **options)
    together = average(model, x, y, threat, stack=3, **options)
    assert together.perturbed == pytest.approx(alone.perturbed, rel=1e-4)


GIB = 2**30


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for a GPU: how long a block takes and what it needs are the test's to say."""

    class Gpu:
        seconds = staticmethod(lambda size: 1.0)
        bytes = staticmethod(lambda size: GIB * size)
        free, clock, size = 100 * GIB, 0.0, 0

        def run(self, block):
            self.size = len(block)
            sizes.append(self.size)
            self.clock += self.seconds(self.size)
            return list(block)

    found, sizes = Gpu(), []
    found.sizes = sizes
    monkeypatch.setattr("time.perf_counter", lambda: found.clock)
    for name, value in {
        "reset_peak_memory_stats": lambda _: None,
        "memory_allocated": lambda _: 0,
        "memory_reserved": lambda _: 0,
        "max_memory_allocated": lambda _: found.bytes(found.size),
        "mem_get_info": lambda _: (found.free, found.free),
        "empty_cache": lambda: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return found


@pytest.mark.parametrize(
    ("seconds", "free", "want"),
    [
        (lambda size: 1.0, 100, [1, 2, 4, 8, 5]),  # launches are all that takes time
        (lambda size: 1.0, 5, [1, 2, 4, 4, 4, 4, 1]),  # no room for more than four
        (lambda size: 1.0, 1, [1] * 20),  # nor for two
        (lambda size: 1.1 * size, 100, [1, 2, 1, 1]),  # together is no faster
        (lambda size: 1 + max(0, size - 2), 100, [1, 2, 4, 2, 2]),  # beyond two it is not
    ],
)
def test_on_a_gpu_as_many_as_pay_and_have_room(seconds, free, want, gpu):
    gpu.seconds, gpu.free = seconds, free * GIB
    count = 20
    found = list(Blocks("auto", torch.device("cuda"), str).over(count, gpu.run))
    assert found == list(range(count))
    assert gpu.sizes[: len(want)] == want
    assert sum(gpu.sizes) == count


def test_on_a_cpu_each_runs_alone():
    sizes = []
    run = lambda block: sizes.append(len(block)) or list(block)  # noqa: E731
    assert list(Blocks("auto", CPU, lambda: pytest.fail("not asked")).over(3, run)) == [0, 1, 2]
    assert sizes == [1, 1, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("measure", [average, worst])
def test_a_gpu_gives_the_same_however_many_run_at_once(measure):
    """Rounding turns an attack here and there: a hundredth of the robust loss."""
    model, examples = ra.load(ROBUST, device="cuda"), ra.load_examples("digits", n=128)
    threat = ThreatModel("linf", 0.15)
    alone, automatic, together = (
        measure(model, examples.x, examples.y, threat, steps=5, stack=k) for k in (1, "auto", 4)
    )
    for found in (automatic, together):
        assert found.value == pytest.approx(alone.value, rel=0.02, abs=0.01 * alone.reference)
        assert found.notes == ()
