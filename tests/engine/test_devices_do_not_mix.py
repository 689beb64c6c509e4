"""Attacks, curvature and flatness of a network on a GPU take images of the CPU.

The GPU is pretended (``tests/support/pretended_gpu.py``): what CUDA would refuse is refused, such
as a mixture of both devices, and the numbers are the CPU's. Passes are recorded as on a GPU.
"""

import pytest
import torch
from support.attacks import network
from support.pretended_gpu import GPU, OnGpu, on_gpu, pretended_gpu
from torch.nn import functional as F

from robaudit import attacks, curvature, flatness, norms
from robaudit.engine import Runner, accelerate, captured, frozen, uniform_rows
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.08)
L2, L1 = ThreatModel("l2", 0.4), ThreatModel("l1", 1.5)
ATTACKS = {
    "pgd": lambda *a: attacks.pgd(*a, steps=3, restarts=2, precision="fp32"),
    "pgd, rounded": lambda *a: attacks.pgd(*a, steps=3, restarts=2, precision="bf16"),
    "pgd until broken": lambda *a: attacks.pgd(*a, steps=3, loss="margin", mode="accuracy"),
    "apgd": lambda *a: attacks.apgd(*a, steps=5),
    "apgd, targeted": lambda *a: attacks.apgd(*a, loss="dlr", targets=2, steps=5),
    "fab": lambda *a: attacks.fab(*a, targets=2, steps=3),
    "square": lambda *a: attacks.square(*a, queries=12),
}
CURVATURE = {
    "exact traces": lambda *a: curvature.layer_traces(*a, estimator="exact").per_example,
    "probed traces": lambda *a: curvature.layer_traces(*a, estimator="gauss-newton").per_example,
    "Hessian's traces": lambda *a: curvature.layer_traces(*a, estimator="hessian").per_example,
    "WCI": lambda *a: curvature.wci(*a).value,
    "top layer": lambda model, x, y: curvature.top_layer_trh(model, x, 1 - x, y, "trades").value,
    "largest eigenvalue": lambda *a: curvature.largest_eigenvalue(*a).value,
    "spectrum": lambda *a: curvature.spectrum(*a, top=1, probes=1).largest[0],
    "Fisher-Rao": lambda model, x, y: curvature.fisher_rao(model, x).value,
    "relative flatness": lambda model, x, y: curvature.relative_flatness(model, x).value,
}
_AVERAGE, _WORST = {"perturbations": 2, "steps": 2}, {"passes": 2, "restarts": 1}
OTHERS = {
    "input gradient": lambda *a: attacks.input_gradient_norm(*a, LINF),
    "alignment": lambda *a: attacks.gradient_alignment(*a, LINF),
    "local linearity": lambda *a: attacks.local_linearity(*a, LINF, steps=2).first_order,
    "spectral norms": lambda model, x, y: norms.spectral_norms(model, x).log,
    "adaptive, worst": lambda *a: flatness.adaptive_worst(*a, steps=2).value,
    "adaptive, average": lambda *a: flatness.adaptive_average(*a, perturbations=2).value,
    "landscape": lambda *a: _landscape(*a),
}
FLATNESS = {
    "average": lambda *a: flatness.average(*a, LINF, precision="fp32", **_AVERAGE).value,
    "average, rounded": lambda *a: flatness.average(*a, LINF, precision="bf16", **_AVERAGE).value,
    "worst": lambda *a: flatness.worst(*a, LINF, precision="fp32", **_WORST).value,
    "worst, rounded": lambda *a: flatness.worst(*a, LINF, precision="bf16", **_WORST).value,
}


@pytest.fixture(scope="module")
def few():
    torch.manual_seed(1)
    x = torch.rand(8, 1, 8, 8)
    with torch.no_grad():
        return x, network()(x).argmax(1)


def on_both(run, x, y):
    """What it gives on the CPU, and on the GPU for images of the CPU."""
    here = run(network(), x, y)
    with pretended_gpu():
        there = run(on_gpu(network()), x, y)
        return here, there


@pytest.mark.parametrize(
    ("name", "threat"),
    [
        *((name, LINF) for name in ATTACKS),
        *((name, L2) for name in ("pgd", "square")),
        *((name, L1) for name in ("pgd", "apgd")),
    ],
)
def test_an_attack(name, threat, few):
    here, there = on_both(lambda model, x, y: ATTACKS[name](model, x, y, threat), *few)
    assert {one.device.type for one in (there.x, there.robust, there.loss)} == {"cpu"}
    assert torch.equal(there.robust, here.robust)
    # Rounding turns signs of gradients that are nearly zero, and with them single pixels.
    assert float((there.x - here.x).abs().gt(1e-5).double().mean()) < 0.05
    torch.testing.assert_close(there.loss, here.loss, rtol=1e-2, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("name", CURVATURE)
def test_curvature(name, few):
    """Other chunks of the images fit a GPU, which changes a sum's last bits."""
    here, there = (torch.as_tensor(one) for one in on_both(CURVATURE[name], *few))
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_measures(name, few):
    here, there = (torch.as_tensor(one) for one in on_both(OTHERS[name], *few))
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-6)


def _landscape(model, x, y):
    line = flatness.around(model, flatness.random_direction(model))
    found = flatness.landscape(model, [line], torch.tensor([-1.0, 0.0, 1.0]), x, y, LINF)
    return found.clean


@pytest.mark.parametrize("name", FLATNESS)
def test_flatness(name, few):
    here, there = on_both(FLATNESS[name], *few)
    assert there == pytest.approx(here, rel=1e-3, abs=1e-6)


def test_images_of_the_gpu_are_taken_too(few):
    x, y = few
    with pretended_gpu():
        model = on_gpu(network())
        one = attacks.pgd(model, x, y, LINF, steps=2)
        other = attacks.pgd(model, x.to(GPU), y.to(GPU), LINF, steps=2)
        assert torch.equal(one.x, other.x.cpu())


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_passes_are_recorded_in_each_arithmetic(precision, few):
    x, y = few
    with frozen(network()) as model:
        want = Runner(model, torch.device("cpu")).logits(x)
    with pretended_gpu(), frozen(on_gpu(network())) as model:
        form = accelerate(model, x.shape[1:], precision, examples=x)
        assert form.precision == precision
        runner = Runner(form.forward, GPU, precision=form.precision)
        for _ in range(captured._ASKED + 1):
            got = runner.logits(x)
            _, slope, _ = runner.gradient(_cross_entropy, x, y)
        assert runner.network.notes == []
        assert len(runner.network._recorded) == 2
        assert isinstance(slope, OnGpu)
        torch.testing.assert_close(got.cpu(), want, rtol=0.05, atol=0.05)


def _cross_entropy(logits, y):
    return F.cross_entropy(logits, y, reduction="none")


def test_draws_are_the_same_integers(few):
    rows = torch.arange(5)
    want = uniform_rows((3, 7), rows, 4, "a test")
    with pretended_gpu():
        got = uniform_rows((3, 7), rows, 4, "a test", device=GPU)
        assert torch.equal(got.cpu(), want)


# The pretended GPU itself


def test_it_computes_and_differentiates(few):
    x, y = few
    with pretended_gpu():
        model = on_gpu(network())
        leaf = x.to("cuda").requires_grad_()
        loss = F.cross_entropy(model(leaf), y.to("cuda"))
        (slope,) = torch.autograd.grad(loss, leaf)
        assert (leaf.device, slope.device) == (GPU, GPU)
        found = slope.cpu()
    leaf = x.clone().requires_grad_()
    (want,) = torch.autograd.grad(F.cross_entropy(network()(leaf), y), leaf)
    assert torch.equal(found, want)


@pytest.mark.parametrize(
    "mix",
    [
        lambda here, there: here + there,
        lambda here, there: torch.cat([here, there]),
        lambda here, there: here[there > 0],
        lambda here, there: torch.where(there > 0, here, there),
        lambda here, there: there.index_copy_(0, torch.arange(3), there),
        lambda here, there: there.__setitem__(there > 0, here),
        lambda here, there: there.normal_(generator=torch.Generator()),
        lambda here, there: here + there.sum(),
        lambda here, there: torch.equal(here, there),
    ],
)
def test_it_refuses_what_cuda_refuses(mix):
    with pretended_gpu(), pytest.raises(RuntimeError, match=r"device|generator"):
        mix(torch.ones(3), torch.ones(3, device="cuda"))


@pytest.mark.parametrize(
    "meet",
    [
        lambda here, there: there + here.sum(),
        lambda here, there: there[here > 0],
        lambda here, there: there.copy_(here),
        lambda here, there: there.cpu() + here,
        lambda here, there: there + torch.tensor([1.0, 2, 3], device=there.device),
        lambda here, there: there.new_zeros(3) + there,
    ],
)
def test_it_allows_what_cuda_allows(meet):
    with pretended_gpu():
        assert meet(torch.ones(3), torch.ones(3, device="cuda")).shape == (3,)


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x[: int(x.sum())],
        lambda x: x[x > 0],
        lambda x: x.cpu(),
        lambda x: x + torch.ones(2).to(x.device),
    ],
)
def test_recording_refuses_to_wait_for_results(work):
    with pretended_gpu() as device:
        recorder = captured.recorder_for(device)
        x = torch.ones(2, device=device)
        with pytest.raises(RuntimeError, match="capturing"):
            recorder.record(lambda: work(x))
        first, again = recorder.record(lambda: x + 1)
        x.add_(1)
        again()
        assert first.tolist() == [3, 3]
