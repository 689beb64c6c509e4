"""Winograd convolutions compute what the network's own do, forwards and backwards."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.engine import accelerate
from robaudit.engine.winograd import with_winograd

WIDE = 128


def conv(channels=WIDE, out=WIDE, **how):
    torch.manual_seed(0)
    return nn.Conv2d(channels, out, 3, padding=1, **how)


@pytest.mark.parametrize("size", [(4, 4), (8, 12), (7, 7), (14, 13), (5, 5)])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_values_and_gradients_are_those_of_the_direct_convolution_in_float64(size, last, bias):
    direct = conv(out=WIDE + 3, bias=bias)
    fast = with_winograd(direct)
    torch.manual_seed(1)
    x = torch.randn(3, WIDE, *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    own, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    out = fast(own)
    shift = direct.bias.double() if bias else None
    wanted = F.conv2d(exact, direct.weight.double(), shift, padding=1)
    slopes = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, own, slopes)
    (true,) = torch.autograd.grad(wanted, exact, slopes.double())
    # Values are near one. The transforms multiply rounding by about a hundred in the worst case.
    torch.testing.assert_close(out.double(), wanted, rtol=0, atol=5e-5)
    torch.testing.assert_close(gradient.double(), true, rtol=0, atol=5e-5)


@pytest.mark.parametrize("images", [1, 41, 64])
def test_any_number_of_images_goes_through_winograds_tiles(images):
    direct = conv()
    fast = with_winograd(direct)
    x = torch.randn(images, WIDE, 8, 8, generator=torch.Generator().manual_seed(images))
    with torch.no_grad():
        torch.testing.assert_close(fast(x), direct(x), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "layer",
    [
        conv(64), conv(out=64), conv(stride=2), nn.Conv2d(3, 16, 4, padding=1), conv(groups=2),
        conv(padding_mode="reflect"), nn.Conv2d(3, 16, 4, (2, 1)),
        conv(dtype=torch.float64), nn.Conv2d(WIDE, WIDE, 3), nn.Conv2d(WIDE, WIDE, 5, padding=1),
        nn.Conv2d(WIDE, WIDE, 3, padding=1, dilation=2), nn.Conv1d(WIDE, WIDE, 3, padding=1),
        nn.ConvTranspose2d(WIDE, WIDE, 3, padding=1),
        nn.utils.parametrizations.weight_norm(conv()),
    ],
)  # fmt: skip
def test_other_layers_are_left_alone(layer):
    assert with_winograd(nn.Sequential(layer, nn.ReLU())) is None


def test_a_wide_network_is_run_by_it_and_stays_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, WIDE, 3, padding=1), nn.ReLU(), conv(), nn.BatchNorm2d(WIDE), nn.ReLU(),
        nn.Flatten(), nn.Linear(64 * WIDE, 5),
    ).eval()  # fmt: skip
    before = copy.deepcopy(network.state_dict())
    found = accelerate(network, (3, 8, 8))
    assert found.used[:3] == ("batch norm folded", "Winograd convolutions", "channels last")
    assert "Winograd convolutions" not in accelerate(network, (3, 8, 8), "bf16").used
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x), network(x), rtol=1e-4, atol=1e-5)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_weights_that_ruin_its_rounding_are_found_out():
    """Kernels whose terms cancel: what the transforms lose is then all there is."""
    layer = conv(bias=False)
    with torch.no_grad():
        layer.weight.copy_(1e4 * (layer.weight - layer.weight.mean((1, 2, 3), keepdim=True)))
        layer.weight[:, 1::2] = -layer.weight[:, ::2]
    network = nn.Sequential(
        nn.Conv2d(1, WIDE, 1), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDE, 4)
    )
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.zero_()
    found = accelerate(network.eval(), (1, 8, 8))
    assert "Winograd convolutions" not in found.used
    assert any("Winograd convolutions are not used" in note for note in found.notes)
