"""Plain sequential networks: whatever was trained is among the candidates for its shapes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from robaudit.checkpoints.architectures import identify

# As the verification community names them; the kernels, strides and paddings are the published.
PUBLISHED = {
    "CNN-A": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(2048, 100), nn.ReLU(), nn.Linear(100, 10),
    ),
    "CNN-B": lambda: nn.Sequential(
        nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(3, 32, 5, 2, 0), nn.ReLU(),
        nn.Conv2d(32, 128, 4, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8192, 250), nn.ReLU(),
        nn.Linear(250, 10),
    ),
    "ConvSmall": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 4, 2, 0), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 0), nn.ReLU(),
        nn.Flatten(), nn.Linear(1152, 100), nn.ReLU(), nn.Linear(100, 10),
    ),
    "ConvBig": lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(4096, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, 10),
    ),
    "cifar-deep": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 4, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(), nn.Conv2d(8, 8, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 100), nn.ReLU(), nn.Linear(100, 10),
    ),
    "mnist-ConvBig": lambda: nn.Sequential(
        nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(),
        nn.Linear(512, 10),
    ),
    "LeNet": lambda: nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    ),
    "batch-norm": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 64), nn.ReLU(), nn.Dropout(), nn.Linear(64, 10),
    ),
    "global-pool": lambda: nn.Sequential(
        nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ),
    "mlp": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(),
        nn.Linear(200, 10),
    ),
}  # fmt: skip
OTHERS = ("leaky", "sigmoid", "tanh", "gelu", "silu", "softplus", "-elu")
IMAGES = dict.fromkeys(("mnist-ConvBig", "LeNet", "mlp"), (1, 28, 28))


def shapes_of(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def equal_to(network, found, image):
    """The labels of the candidates with ReLU that compute the same."""
    found = [c for c in found if not any(a in c.label for a in OTHERS)]
    torch.manual_seed(0)
    x = torch.randn(4, *image, dtype=torch.float64)
    network = network.double().eval()
    same = []
    with torch.no_grad():
        for candidate in found:
            other = candidate.build().double().eval()
            other.load_state_dict(network.state_dict())
            if torch.allclose(other(x), network(x), rtol=1e-9, atol=1e-12):
                same.append(candidate.label)
    return same


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_among_the_candidates(name):
    torch.manual_seed(0)
    network = PUBLISHED[name]()
    image = IMAGES.get(name, (3, 32, 32))
    found = identify(shapes_of(network), image=image)
    # Twelve layouts at most, each with ten activations, those with ReLU first.
    assert len(found) <= 120
    assert equal_to(network, found[: len(found) // 10], image)


@pytest.mark.parametrize("name", ["CNN-A", "ConvSmall", "ConvBig", "mnist-ConvBig", "LeNet"])
def test_the_published_one_comes_first(name):
    network = PUBLISHED[name]()
    image = IMAGES.get(name, (3, 32, 32))
    first = identify(shapes_of(network))[:1]
    assert equal_to(network, first, image)


@st.composite
def networks(draw):
    """One padding for each kernel, an activation behind every convolution, and a matrix."""
    size, channels = draw(st.sampled_from([(32, 3), (28, 1), (64, 3)]))
    layers, image = [], (channels, size, size)
    paddings = {3: draw(st.sampled_from([0, 1])), 4: draw(st.sampled_from([0, 1]))}
    for _ in range(draw(st.integers(1, 2))):
        kernel = draw(st.sampled_from([3, 4]))
        stride = draw(st.sampled_from([1, 2]))
        width = draw(st.integers(2, 5))
        layers += [nn.Conv2d(channels, width, kernel, stride, paddings[kernel]), nn.ReLU()]
        channels, size = width, (size + 2 * paddings[kernel] - kernel) // stride + 1
    layers += [nn.Flatten(), nn.Linear(channels * size**2, 5)]
    return nn.Sequential(*layers), image


@given(networks())
@settings(max_examples=40, deadline=None)
def test_what_was_built_is_among_the_candidates(made):
    network, image = made
    found = identify(shapes_of(network), image=image)
    assert equal_to(network, found, image)


def test_a_normalisation_taken_off_the_front_leaves_a_gap():
    network = nn.Sequential(nn.Identity(), *PUBLISHED["ConvSmall"]())
    found = identify(shapes_of(network), image=(3, 32, 32))
    assert equal_to(network, found, (3, 32, 32))
