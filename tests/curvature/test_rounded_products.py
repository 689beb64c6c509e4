"""Products in TF32: a GPU's, of which a rounded product on a CPU is the twin."""

import pytest
import torch
from support.dense import dense_full
from support.networks import piecewise_linear, smooth, warmed

from robaudit.curvature import largest_eigenvalue, matrices, spectrum
from robaudit.curvature.pieces import Pieces

CPU = torch.device("cpu")

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}
CHOSEN = ["residual", "batch-norm", "silu", "attention"]


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(6, 2, 6, 6), torch.tensor([0, 1, 2, 1, 0, 2])


@pytest.fixture
def rounding(monkeypatch):
    """Asking for TF32 gives products whose input and output have ``bits`` bits."""
    settings = {"bits": 10}
    exact = matrices.hessian_product

    def cut(v):
        step = 2.0 ** (settings["bits"] + 1)
        fraction, exponent = torch.frexp(v)
        return torch.ldexp((fraction * step).round() / step, exponent)

    def product(*args, precision, **options):
        found = exact(*args, **options)
        return found if precision == "fp32" else lambda v: cut(found(cut(v)))

    monkeypatch.setattr(matrices, "hessian_product", product)
    monkeypatch.setattr(matrices, "candidates", lambda asked, device: ("tf32", "fp32"))
    return settings


def eigenvalues(model, x, y):
    """In float64, of the network in float32."""
    model.double()
    try:
        return torch.linalg.eigvalsh(dense_full(model, x.double(), y))
    finally:
        model.float()


@pytest.mark.parametrize("tolerance", [1e-2, 1e-3, 2e-5])
@pytest.mark.parametrize("name", CHOSEN)
def test_a_true_eigenvalue_is_within_each_residual(name, tolerance, batch, rounding):
    model = warmed(NETWORKS[name], (2, 6, 6)).float()
    true = eigenvalues(model, *batch)
    found = spectrum(model, *batch, top=3, tolerance=tolerance, precision="auto")
    assert found.precision == "tf32"
    assert 1e-5 < found.rounding < 1e-2
    ends = [*zip(found.largest, found.residuals, strict=True)]
    ends.append((found.smallest, found.smallest_residual))
    for value, residual in ends:
        assert float((true - value).abs().min()) <= residual
    last = 16 * torch.finfo(torch.float32).eps * found.largest[0]
    for value, residual in ends[:3]:
        assert residual <= tolerance * value + last
    assert found.largest[0] == pytest.approx(float(true[-1]), rel=tolerance)


@pytest.mark.parametrize("name", CHOSEN)
def test_the_largest_eigenvalue_is_within_its_residual(name, batch, rounding):
    model = warmed(NETWORKS[name], (2, 6, 6)).float()
    true = eigenvalues(model, *batch)
    found = largest_eigenvalue(model, *batch, precision="tf32")
    assert (found.precision, found.converged) == ("tf32", True)
    assert abs(found.value - float(true[-1])) <= found.residual <= 1e-3 * found.value


def test_rounding_that_leaves_no_digits_is_refused(batch, rounding):
    model = warmed(NETWORKS["residual"], (2, 6, 6)).float()
    rounding["bits"] = 2
    found = spectrum(model, *batch, top=2, precision="tf32")
    assert (found.precision, found.rounding, found.converged) == ("fp32", 0.0, True)
    assert any("products are in fp32: rounding would change them by" in n for n in found.notes)


def test_rounding_widens_the_traces_error_bar(batch, rounding):
    model = warmed(NETWORKS["residual"], (2, 6, 6)).float()
    rounding["bits"] = 5
    plain = spectrum(model, *batch, precision="fp32")
    coarse = spectrum(model, *batch, precision="tf32")
    assert coarse.precision == "tf32"
    one = spectrum(model, *batch, probes=1, precision="tf32")
    assert one.trace_standard_error != one.trace_standard_error  # of one probe it is not known
    bar = (coarse.trace_standard_error**2 + plain.trace_standard_error**2) ** 0.5
    assert abs(coarse.trace - plain.trace) < 3 * bar


@pytest.mark.parametrize("asked", ["auto", "tf32", "bf16", "float64"])
def test_a_cpu_has_no_tf32(asked, batch):
    model = warmed(NETWORKS["residual"], (2, 6, 6)).float()
    assert spectrum(model, *batch, top=1, precision=asked).precision == "fp32"


def test_halves_are_those_of_their_hessians(batch):
    model = warmed(NETWORKS["silu"], (2, 6, 6)).double()
    x, y = batch[0][:5].double(), batch[1][:5]
    found = spectrum(model, x, y, top=1, tolerance=1e-9, halves=True)
    _, vectors = torch.linalg.eigh(dense_full(model, x, y))
    u = vectors[:, -1]
    for half, part in zip(found.halves, (slice(0, 2), slice(2, 5)), strict=True):
        want = float(u @ dense_full(model, x[part], y[part]) @ u)
        assert half == pytest.approx(want, rel=1e-6)
    assert spectrum(model, x, y, top=1).halves is None


def test_what_does_not_fit_is_halved_and_said():
    x, y = torch.arange(10.0)[:, None], torch.zeros(10)
    pieces = Pieces(x, y, CPU, size=10)
    sizes = []

    def term(at, images, labels):
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return images.sum(0)

    assert pieces.notes == ()
    assert float(pieces.sum([CPU], term)) == 45
    assert sizes == [10, 5, 2, 2, 2, 2, 2]
    assert "second derivatives of 5 examples: they are computed for 2 at a time" in pieces.notes[0]
    assert float(pieces.sum([CPU], term)) == 45
    with pytest.raises(torch.cuda.OutOfMemoryError):
        Pieces(x, y, CPU, size=2).sum([CPU], lambda *_: term(0, x, y))
