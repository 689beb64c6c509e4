"""Networks whose keys do not show what lies between their layers: what was trained is among the
candidates, whatever it pools and activates with, and computes the same.
"""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.plain_networks import ACTIVATIONS, CIFAR, MNIST, NETWORKS, Named, auto_lirpa, mlp
from torch import nn
from torch.nn import functional as F

from robaudit.checkpoints.architectures import identify, named, parse_arch
from robaudit.checkpoints.wrapping import unwrappings


def moved(network):
    """In float64, with statistics that a norm would be noticed by."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.double().eval()


def candidates(network, image, order=list):
    """Those of the first stage of unwrapping that has some, with their state dict."""
    state = network.state_dict()
    shapes = {key: tuple(state[key].shape) for key in order(state)}
    for stage in unwrappings(shapes):
        if found := identify(stage.shapes, image=image):
            return found, {name: state[key] for name, key in stage.names.items()}
    return (), {}


def same(network, found, state, image, act="relu"):
    """The first of those with this activation that computes the same."""
    torch.manual_seed(1)
    x = torch.randn(2, *image, dtype=torch.float64)
    with torch.no_grad():
        logits = network(x)
        for candidate in found:
            if f"-{act}-" not in candidate.arguments["layers"]:
                continue
            other = candidate.build().double().eval()
            other.load_state_dict(state)
            if torch.allclose(other(x), logits, rtol=1e-9, atol=1e-12):
                return candidate
    return None


@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_trained_is_among_the_candidates(name):
    torch.manual_seed(0)
    build, image = NETWORKS[name]
    network = moved(build())
    found, state = candidates(network, image)
    it = same(network, found, state, image)
    assert it is not None
    # Its label names it, for --arch.
    family, arguments = parse_arch(it.label)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    (only,) = named(family, arguments, shapes, image=image)
    assert only.label == it.label


@pytest.mark.parametrize("build", [mlp, auto_lirpa])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_it_is_whatever_it_activates_with(act, build):
    torch.manual_seed(0)
    network, image = moved(build(ACTIVATIONS[act])), MNIST if build is mlp else CIFAR
    found, state = candidates(network, image)
    it = same(network, found, state, image, act)
    assert it is not None


@pytest.mark.parametrize("name", ["tutorial", "mnist example", "mlp", "2B", "4B", "COLT"])
def test_the_usual_one_comes_first(name):
    build, image = NETWORKS[name]
    network = moved(build())
    found, state = candidates(network, image)
    assert same(network, found[:1], state, image)


@pytest.mark.parametrize("name", ["tutorial", "norms registered last", "mlp", "4B"])
def test_a_file_that_sorts_its_keys_is_read_the_same(name):
    build, image = NETWORKS[name]
    network = moved(build())
    found, state = candidates(network, image, order=sorted)
    assert same(network, found, state, image)


@st.composite
def networks(draw):
    """One or two convolutions and one or two matrices, with one activation and one kind of pool."""
    size, channels = draw(st.sampled_from([(32, 3), (28, 1), (8, 1)]))
    image = (channels, size, size)
    name = draw(st.sampled_from(list(ACTIVATIONS)))
    act = ACTIVATIONS[name]
    pool = draw(st.sampled_from([F.max_pool2d, F.avg_pool2d]))
    kernel, layers, pooled = draw(st.sampled_from([3, 5])), {}, []
    padding = draw(st.sampled_from([0, kernel // 2])) if size > 8 else kernel // 2
    for i in range(draw(st.integers(1, 2))):
        width = draw(st.integers(2, 5))
        pooled.append(draw(st.booleans()))
        layers[f"conv{i + 1}"] = nn.Conv2d(channels, width, kernel, padding=padding)
        channels, size = width, (size + 2 * padding - kernel + 1) // (2 if pooled[-1] else 1)
    widths = [channels * size**2, *draw(st.lists(st.integers(3, 9), max_size=1)), 10]
    for i, (inputs, outputs) in enumerate(pairwise(widths)):
        layers[f"fc{i + 1}"] = nn.Linear(inputs, outputs)

    def forward(net, x):
        for i, shrinks in enumerate(pooled):
            x = act(net.get_submodule(f"conv{i + 1}")(x))
            x = pool(x, 2) if shrinks else x
        x = net.fc1(x.flatten(1))
        return net.fc2(act(x)) if len(widths) > 2 else x

    return Named(forward, **layers), image, name


@given(networks())
@settings(max_examples=25, deadline=None)
def test_any_small_network_is_among_the_candidates(made):
    network, image, act = made
    network = moved(network)
    found, state = candidates(network, image)
    assert same(network, found, state, image, act)


def test_a_chain_that_does_not_hold_is_no_network():
    state = {"conv1.weight": (8, 3, 3, 3), "fc1.weight": (10, 8 * 7 * 5)}
    assert identify(state) == ()  # no square map
    assert identify({**state, "fc1.weight": (10, 9)}) == ()
    assert identify({"fc1.weight": (10, 64), "fc2.weight": (10, 9)}) == ()
    assert identify({**state, "scale": (3,)}) == ()


def test_hostile_chains_are_read_in_no_time():
    deep = {f"conv{i}.weight": (4, 4, 3, 3) for i in range(46)}
    identify({**deep, "fc.weight": (10, 4 * 49)}, image=(4, 224, 224))
    kernels = {f"conv{i}.weight": (4, 4, i, i) for i in range(1, 30)}
    identify({**kernels, "fc.weight": (10, 4 * 49)})
    assert identify({f"fc{i}.weight": (9, 9) for i in range(5000)}) == ()
