"""Traces and eigenvalues on a GPU, in each of its arithmetics, are the CPU's."""

import pytest

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature import largest_eigenvalue, layer_traces, spectrum

pytestmark = pytest.mark.gpu


def on(device):
    return ra.load(samples_dir() / "robust.pt", device=device)


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_traces_are_the_cpus_within_what_rounding_is_said_to_change(precision):
    """A hundredth of a standard error is ample for float32."""
    examples = ra.load_examples("digits")
    want = layer_traces(on("cpu"), examples.x, examples.y, estimator="exact", precision="fp32")
    found = layer_traces(on("cuda"), examples.x, examples.y, estimator="exact", precision=precision)
    assert found.precision == precision
    for name, layer in want.layers.items():
        other = found.layers[name]
        assert (other.rounding > 0) == (precision != "fp32")
        allowed = 3 * other.rounding + 0.01 * layer.standard_error
        assert abs(other.trace - layer.trace) < allowed


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_eigenvalues_are_the_cpus_within_their_residuals(precision):
    examples = ra.load_examples("digits", n=64)
    x, y = examples.x, examples.y
    want = spectrum(on("cpu"), x, y, top=2, tolerance=1e-4, precision="fp32")
    found = spectrum(on("cuda"), x, y, top=2, precision=precision)
    assert found.converged
    assert found.precision == ("tf32" if precision == "auto" else "fp32")
    for at in range(2):
        allowed = found.residuals[at] + want.residuals[at]
        assert abs(found.largest[at] - want.largest[at]) <= allowed
    assert abs(found.smallest - want.smallest) <= found.smallest_residual + want.smallest_residual
    one = largest_eigenvalue(on("cuda"), x, y, precision=precision)
    assert abs(one.value - want.largest[0]) <= one.residual + want.residuals[0]
