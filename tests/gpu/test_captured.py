"""Recorded passes on a GPU are those that are launched kernel by kernel."""

import pytest
import torch

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.engine import Runner, accelerate, frozen

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")


def _loss(logits, y):
    return torch.nn.functional.cross_entropy(logits, y, reduction="none")


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
@pytest.mark.parametrize("name", ["robust.pt", "smooth.safetensors"])
def test_recorded_passes_are_the_plain_ones(name, precision):
    model = ra.load(samples_dir() / name, device="cuda")
    examples = ra.load_examples("digits", n=300)
    with frozen(model):
        found = accelerate(model, (1, 8, 8), precision, examples=examples.x)
        recorded = Runner(found.forward, CUDA, precision=found.precision)
        plain = Runner(lambda x: found.forward(x), CUDA, precision=found.precision)
        for seed in range(24):  # 300 images are passes of 256 and of 64
            torch.manual_seed(seed)
            x = (examples.x + 0.1 * torch.rand(300, 1, 8, 8)).clamp(0, 1)
            for a, b in zip(
                recorded.gradient(_loss, x, examples.y),
                plain.gradient(_loss, x, examples.y),
                strict=True,
            ):
                off = 1e-4 if found.precision == "fp32" else 0.05
                assert float((a - b).norm()) <= off * float(b.norm())
    assert recorded.network.notes == []
    assert recorded.network.records


def test_a_network_that_reads_values_is_run_as_usual():
    class Reads(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1) * (1.0 if x.sum().item() > 0 else -1.0)

    runner = Runner(Reads(), CUDA)
    x = torch.rand(64, 1, 1, 5)
    for _ in range(12):
        assert torch.equal(runner.logits(x).cpu(), x.flatten(1))
    assert "reads values" in runner.network.notes[0]
