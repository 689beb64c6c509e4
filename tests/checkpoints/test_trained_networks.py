"""Networks trained here, with a known activation and normalisation: found, harmless or open."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.checkpoints import load
from robaudit.checkpoints.architectures.convolutional import sequential_cnn
from robaudit.checkpoints.normalization import parse_normalization
from robaudit.data import deciding_examples, load_examples
from robaudit.errors import OpenQuestionError
from robaudit.types import ThreatModel

LAYERS = "conv1x8k3s1p1-{0}-conv8x16k3s2p1-{0}-flatten-linear256x32-{0}-linear32x10"
THREAT = ThreatModel("linf", 0.1)


def trained(network, x, y, normalization, eps, epochs=25):
    """Adam on clean images, or on those of three ascent steps."""
    generator = torch.Generator().manual_seed(0)
    mean, std = (0.0, 1.0) if normalization is None else (normalization.mean[0],
                                                          normalization.std[0])  # fmt: skip

    def loss(images, labels):
        return F.cross_entropy(network((images - mean) / std), labels)

    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for epoch in range(epochs):
        optimiser.param_groups[0]["lr"] = 2e-3 * min(1, 2 - 2 * epoch / epochs)
        for rows in torch.randperm(len(x), generator=generator).split(64):
            images, labels = x[rows], y[rows]
            moved = eps * (2 * torch.rand(images.shape, generator=generator) - 1)
            for _ in range(3 if eps else 0):
                moved.requires_grad_()
                (gradient,) = torch.autograd.grad(loss((images + moved).clamp(0, 1), labels), moved)
                moved = (moved.detach() + 0.6 * eps * gradient.sign()).clamp(-eps, eps)
            optimiser.zero_grad()
            loss((images + moved).clamp(0, 1), labels).backward()
            optimiser.step()
    return network.eval()


# Alike but for the sign of small inputs: their robust accuracies hardly differ.
NEAR = ({"relu", "leaky"}, {"gelu", "silu"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "normalization", "eps"),
    [
        ("relu", "none", 0.1), ("relu", "half", 0.1), ("tanh", "none", 0.1),
        ("sigmoid", "none", 0.0), ("gelu", "half", 0.1), ("softplus", "half", 0.0),
    ],
)  # fmt: skip
def test_the_truth_or_harmless_or_open(activation, normalization, eps, tmp_path):
    train = load_examples("digits", split="train")
    torch.manual_seed(1)
    said = parse_normalization(normalization)
    network = trained(sequential_cnn(LAYERS.format(activation)), train.x, train.y, said, eps)
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    examples = deciding_examples("digits")
    try:
        found = load(path, device="cpu", examples=examples, threat=THREAT)
    except OpenQuestionError as error:
        rows = [line for line in error.candidates if "%" in line]
        assert any(normalization in row for row in rows)
        return
    origin = found.origin
    same = {activation, *(name for group in NEAR if activation in group for name in group)}
    assert any(f"-{name}-" in origin.architecture for name in same)
    assert origin.normalization == normalization or origin.harmless


@pytest.mark.slow
def test_a_robust_network_without_a_normalisation_is_determined(tmp_path):
    train = load_examples("digits", split="train")
    torch.manual_seed(1)
    network = trained(sequential_cnn(LAYERS.format("tanh")), train.x, train.y, None, 0.1)
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    examples = deciding_examples("digits")
    (tmp_path / "nets.py").write_text(
        "from robaudit.checkpoints.architectures.convolutional import sequential_cnn\n"
        f"def net():\n    return sequential_cnn({LAYERS.format('tanh')!r})\n"
    )
    origin = load(
        path, arch=f"{tmp_path / 'nets.py'}:net", device="cpu", examples=examples, threat=THREAT
    ).origin
    assert origin.normalization == "none"
    assert (origin.architecture_known, origin.normalization_known) == ("said", "determined")


class FourChannels(nn.Module):
    """A sure network: with 255 times the contrast its cross-entropy is zero in float32."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4 * 16, 10))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("seed", range(3))
def test_higher_contrast_is_no_evidence_of_another_normalisation(tmp_path, seed):
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(10, 4, 4, 4, generator=generator)
    y = torch.arange(600) % 10
    x = 0.5 + 0.25 * (means[y] - 0.5) + 0.1 * torch.randn(600, 4, 4, 4, generator=generator)
    x = x.clamp(0, 1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = FourChannels()
    optimiser = torch.optim.Adam(network.parameters(), 0.05)
    for _ in range(300):
        optimiser.zero_grad()
        F.cross_entropy(network(x), y).backward()
        optimiser.step()
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n\n"
        "    def forward(self, x):\n        return self.layers(x)\n"
    )
    from robaudit.types import Examples

    examples = Examples(x, y, torch.arange(600), "four", "test", "none", 10)
    found = load(
        path, arch=f"{tmp_path / 'nets.py'}:Net", device="cpu", examples=examples, guess=True,
        threat=ThreatModel("linf", 8 / 255),
    )  # fmt: skip
    assert "none" in {trial.normalization for trial in found.origin.trials}
    assert found.origin.normalization == "none" or found.origin.normalization_known == "assumed"
