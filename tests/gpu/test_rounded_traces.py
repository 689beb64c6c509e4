"""Layer traces on a GPU, with backward passes in bfloat16 or not, are the CPU's."""

import pytest

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature import layer_traces

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("precision", "share"), [("fp32", 0.01), ("bf16", 0.1)])
def test_traces_are_within_a_part_of_a_standard_error_of_the_cpus(precision, share):
    """Rounding of bfloat16 is allowed a tenth of it, a hundredth is ample for float32."""
    examples = ra.load_examples("digits")
    on = {
        device: layer_traces(
            ra.load(samples_dir() / "robust.pt", device=device),
            examples.x,
            examples.y,
            estimator="exact",
            precision="fp32" if device == "cpu" else precision,
        )
        for device in ("cpu", "cuda")
    }
    assert on["cuda"].precision == precision
    for name, want in on["cpu"].layers.items():
        assert abs(on["cuda"].layers[name].trace - want.trace) < share * want.standard_error
