"""A live module is audited as it is at that moment, and stays its owner's."""

import pytest
import torch
from torch import nn

import robaudit as ra
from robaudit.checkpoints import load, samples_dir
from robaudit.errors import CheckpointError, UsageError


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Dropout(), nn.Linear(16, 10))


def test_the_modules_own_function(small_images):
    own = network().eval()
    model = load(own, device="cpu")
    assert torch.equal(model(small_images), own(small_images))
    assert model.origin.format == "module"
    assert model.origin.architecture == "Sequential"
    assert model.origin.sha256 is None
    assert model.origin.warnings == ()


def test_training_goes_on_undisturbed(small_images):
    own = network().train()
    model = load(own, device="cpu")
    assert any("training mode" in warning for warning in model.origin.warnings)
    assert own.training
    assert own[2].training
    assert all(p.requires_grad for p in own.parameters())
    before = model(small_images)
    with torch.no_grad():
        own[1].weight.zero_()
    assert torch.equal(model(small_images), before)


def test_what_is_loaded_can_be_loaded_again():
    first = load(samples_dir() / "robust.pt", normalize="none", device="cpu")
    second = load(first, device="cpu")
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(first(x), second(x))
    assert second.origin == first.origin
    assert second.network is not first.network


def test_a_normalisation_can_be_given(small_images):
    own = network().eval()
    model = ra.load(own, normalize="half", device="cpu")
    torch.testing.assert_close(model(small_images), own(2 * small_images - 1))


def test_examples_are_held_against_it():
    with pytest.raises(CheckpointError, match="guessing"):
        load(_constant(), device="cpu", examples=ra.load_examples("digits"))


def test_a_module_that_cannot_be_copied():
    own = network()
    own.held = own[1].weight * 2  # a tensor in the middle of a graph
    with pytest.raises(UsageError, match="cannot be copied"):
        load(own, device="cpu")


def _constant():
    own = network()
    nn.init.zeros_(own[3].weight)
    return own


@pytest.fixture
def small_images():
    return torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
