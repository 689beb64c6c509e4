"""The data decides what keys and shapes leave open, and what it cannot decide is said."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from robaudit.checkpoints import load, samples_dir
from robaudit.checkpoints.choosing import choose
from robaudit.checkpoints.classifier import Origin
from robaudit.checkpoints.normalization import parse_normalization, usual
from robaudit.checkpoints.proposal import Proposal
from robaudit.data import load_examples
from robaudit.errors import CheckpointError

CPU = torch.device("cpu")


class Undo(nn.Module):
    """A trained network behind the inverse of a normalisation, as if trained with it."""

    def __init__(self, network, normalization):
        super().__init__()
        self.network, self.n = network, normalization

    def forward(self, z):
        return self.network(z * self.n.std[0] + self.n.mean[0])


class Broken(nn.Module):
    """The same weights with the wrong activation."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(-x)


@pytest.fixture(scope="module")
def digits():
    return load_examples("digits")


@pytest.fixture(scope="module")
def trained():
    return load(samples_dir() / "robust.pt", normalize="none", device="cpu").network


def proposal(*networks, normalizations=None, by=""):
    origin = Origin("x.pt", None, "torch-zip", "", "a test", "none", 1, normalized_by=by)
    named = tuple((f"net{k}", network) for k, network in enumerate(networks))
    return Proposal(named, normalizations or usual(1), origin)


def test_nothing_is_found_to_be_nothing(trained, digits):
    model = choose(proposal(trained), digits, CPU)
    assert model.origin.normalization == "none"
    assert "clean accuracy" in model.origin.normalized_by


@pytest.mark.parametrize("name", ["mnist", "bytes"])
def test_the_normalisation_of_training_is_found(trained, digits, name):
    wanted = parse_normalization(name)
    model = choose(proposal(Undo(trained, wanted)), digits, CPU)
    assert model.origin.normalization == name
    x = digits.x[:8]
    torch.testing.assert_close(model(x), trained(x), rtol=1e-3, atol=1e-3)
    trials = {trial.normalization: trial for trial in model.origin.trials}
    assert trials.keys() == {n.name if n else "none" for n in usual(1)}
    own = (trained(digits.x).argmax(1) == digits.y).float().mean()
    assert trials[name].accuracy == pytest.approx(float(own), abs=0.01)
    assert all(trial.accuracy <= trials[name].accuracy for trial in trials.values())


def test_the_variant_of_training_is_found(trained, digits):
    model = choose(proposal(Broken(trained), trained, normalizations=(None,)), digits, CPU)
    assert model.origin.architecture == "net1"
    assert model.origin.warnings == ()


def test_variants_that_cannot_take_the_images_are_left_out(trained, digits):
    other = nn.Sequential(nn.Flatten(), nn.Linear(7, 10))
    model = choose(proposal(other, trained), digits, CPU)
    assert model.origin.architecture == "net1"


def test_equals_are_named_and_the_first_is_taken(trained, digits):
    model = choose(proposal(trained, trained, normalizations=(None,), by="x"), digits, CPU)
    (warning,) = model.origin.warnings
    assert model.origin.architecture == "net0"
    assert "net1" in warning
    assert "--arch would settle it" in warning


def test_a_normalisation_that_was_said_is_kept_but_doubted(trained, digits):
    asked = parse_normalization("0.5;1")  # 40 % where nothing at all gives 99 %
    model = choose(proposal(trained, normalizations=(asked,), by="--normalize"), digits, CPU)
    assert model.origin.normalization == "0.5;1.0"
    assert model.origin.normalized_by == "--normalize"
    assert any("with --normalize none" in warning for warning in model.origin.warnings)


def test_a_normalisation_that_was_said_and_gives_guesses_is_refused(trained, digits):
    asked = parse_normalization("mnist")
    network = Undo(trained, parse_normalization("bytes"))
    with pytest.raises(CheckpointError, match=r"with bytes"):
        choose(proposal(network, normalizations=(asked,), by="--normalize"), digits, CPU)


def test_guessing_is_refused_with_what_was_tried(digits):
    torch.manual_seed(0)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    nn.init.zeros_(constant[1].weight)
    with pytest.raises(CheckpointError) as caught:
        choose(proposal(constant), digits, CPU)
    assert "guessing among 10 classes" in caught.value.message
    assert "with none" in caught.value.message
    assert "--normalize" in caught.value.advice
    assert caught.value.exit_code == 4


def test_a_few_images_prove_no_guessing(trained, digits):
    few = load_examples("digits", n=4)
    assert choose(proposal(trained, normalizations=(None,), by="x"), few, CPU) is not None


def test_without_data_nothing_is_checked_and_that_is_said(trained):
    model = choose(proposal(trained, Broken(trained)), None, CPU)
    assert model.origin.architecture == "net0"
    assert any("net1" in warning for warning in model.origin.warnings)
    assert any("--normalize" in warning for warning in model.origin.warnings)


def test_the_examples_must_suit(trained, digits):
    with pytest.raises(CheckpointError, match="does not take images of shape"):
        choose(proposal(nn.Linear(3, 3)), digits, CPU)


def test_a_set_that_is_sorted_by_class_is_sampled_throughout(trained, digits):
    order = torch.argsort(digits.y, stable=True)
    ordered = replace(digits, x=digits.x[order], y=digits.y[order], index=digits.index[order])
    first = [
        choose(proposal(trained, normalizations=(None,), by="x"), those, CPU).origin.trials[0]
        for those in (ordered, digits)
    ]
    assert first[0] == first[1]  # all of them, in whatever order
    with_choice = choose(proposal(trained), ordered, CPU).origin
    assert with_choice.normalization == "none"


def test_it_says_at_rest_only_where_the_loss_is(trained, digits):
    # Two near neighbours of the truth with a third of the images shifted: at rest at neither.
    x = digits.x.clone()
    x[::3] = (x[::3] + 0.2).clamp(0, 1)
    shifted = replace(digits, x=x)
    near = tuple(parse_normalization(f"{m};1") for m in (-0.1, -0.12))
    origin = choose(proposal(trained, normalizations=near), shifted, CPU).origin
    assert min(trial.shift_t2 for trial in origin.trials) > 10.8  # chi-squared's 99.9 % point
    assert "at rest" not in origin.normalized_by
    assert "moving least there" in origin.normalized_by
    assert any("came to rest neither there nor" in warning for warning in origin.warnings)
