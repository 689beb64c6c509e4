"""The data decides what keys and shapes leave open, and what it cannot decide is said."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from robaudit.checkpoints import load, samples_dir
from robaudit.checkpoints.choosing import Asked
from robaudit.checkpoints.choosing import choose as choose_all
from robaudit.checkpoints.classifier import Origin
from robaudit.checkpoints.combinations import Proposal
from robaudit.checkpoints.normalization import parse_normalization, usual
from robaudit.data import load_examples
from robaudit.errors import CheckpointError, OpenQuestionError
from robaudit.types import ThreatModel

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


THREAT = ThreatModel("linf", 0.1)


def choose(proposal, examples, device, **said):
    """The one checkpoint of a question of its own."""
    return choose_all((proposal,), Asked(examples, THREAT, **said), device)[0]


def proposal(*networks, normalizations=None, by=""):
    origin = Origin("x.pt", None, "torch-zip", "", "a test", "none", 1, normalized_by=by)
    named = tuple((f"net{k}", network) for k, network in enumerate(networks))
    return Proposal(named, normalizations or usual(1), origin)


def test_nothing_is_found_to_be_nothing(trained, digits):
    origin = choose(proposal(trained), digits, CPU).origin
    assert origin.normalization == "none"
    assert origin.normalization_known == "determined"
    assert origin.normalized_by.startswith("the data (")


@pytest.mark.parametrize("name", ["mnist", "bytes"])
def test_the_normalisation_of_training_is_found(trained, digits, name):
    wanted = parse_normalization(name)
    model = choose(proposal(Undo(trained, wanted)), digits, CPU)
    assert (model.origin.normalization, model.origin.normalization_known) == (name, "determined")
    x = digits.x[:8]
    torch.testing.assert_close(model(x), trained(x), rtol=1e-3, atol=1e-3)
    trials = {trial.normalization: trial for trial in model.origin.trials}
    assert trials.keys() == {n.name if n else "none" for n in usual(1)}
    own = (trained(digits.x).argmax(1) == digits.y).float().mean()
    assert trials[name].accuracy == pytest.approx(float(own), abs=0.01)
    assert next(iter(trials)) == name


def test_the_variant_of_training_is_found(trained, digits):
    model = choose(proposal(Broken(trained), trained, normalizations=(None,)), digits, CPU)
    assert model.origin.architecture == "net1"
    assert model.origin.warnings == ()


def test_variants_that_cannot_take_the_images_are_left_out(trained, digits):
    other = nn.Sequential(nn.Flatten(), nn.Linear(7, 10))
    model = choose(proposal(other, trained), digits, CPU)
    assert model.origin.architecture == "net1"


def test_equals_do_not_matter_and_the_first_is_taken(trained, digits):
    origin = choose(proposal(trained, trained, normalizations=(None,), by="x"), digits, CPU).origin
    assert origin.architecture == "net0"
    assert origin.architecture_known == "determined"
    assert origin.harmless.startswith("1 other network fit")
    assert origin.warnings == ()


class Masked(nn.Module):
    """The same classes for nearly every image, and no gradient to follow."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        logits = self.network(x)
        return logits + (1e-4 * logits).round() - 1e-4 * logits.detach() - logits + logits.detach()


def test_equals_that_differ_under_attack_are_open(trained, digits):
    both = proposal(trained, Masked(trained), normalizations=(None,), by="x")
    with pytest.raises(OpenQuestionError) as caught:
        choose(both, digits, CPU)
    error = caught.value
    assert error.exit_code == 4
    assert "500 images do not tell which network it was trained with" in error.message
    assert "--arch" in error.advice
    assert "--guess" in error.advice
    head, first, second, *options = error.candidates
    assert "PGD-10, linf" in head
    assert first.startswith("A, none")
    assert second.startswith("B, none")
    assert "no gradient to attack along" in second
    assert options == ["A: --arch net0", "B: --arch net1"]
    assumed = choose(both, digits, CPU, guess=True).origin
    assert (assumed.architecture, assumed.architecture_known) == ("net0", "assumed")
    assert assumed.normalization_known == "said"


def test_the_order_of_candidates_decides_nothing(trained, digits):
    shifted = parse_normalization("-0.2;1")
    for normalizations in ((None, shifted), (shifted, None)):
        origin = choose(proposal(trained, normalizations=normalizations), digits, CPU).origin
        assert origin.normalization == "none"


def test_few_images_leave_more_open(trained):
    few = load_examples("digits", n=24)
    near = tuple(parse_normalization(f"{m};1") for m in (0.0, -0.05))
    with pytest.raises(OpenQuestionError, match="24 images do not tell") as caught:
        choose(proposal(trained, normalizations=near), few, CPU)
    assert "More than 24 images may tell too" in caught.value.advice


@pytest.mark.slow
def test_where_curvature_is_measured_a_harmless_choice_is_open_too(trained, digits):
    near = tuple(parse_normalization(f"{m};1") for m in (0.0, 1e-4))
    alike = proposal(trained, normalizations=near)
    origin = choose(alike, digits, CPU).origin
    assert origin.normalization_known == "determined"
    assert "robust accuracy is the same" in origin.harmless
    with pytest.raises(OpenQuestionError):
        choose(alike, digits, CPU, exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("claims", [{"acc": 0.7}, {"best_sa": 0.7}])
def test_a_record_far_from_what_is_measured_leaves_it_open(trained, digits, claims):
    told = proposal(trained)
    told = replace(told, origin=replace(told.origin, claims=claims))
    with pytest.raises(OpenQuestionError, match=r"it records \w+ = 70.0%, but 99"):
        choose(told, digits, CPU)
    assert choose(told, digits, CPU, guess=True).origin.normalization_known == "assumed"
    said = replace(told, normalizations=(None,), origin=replace(told.origin, normalized_by="x"))
    assert choose(said, digits, CPU).origin.normalization == "none"


def test_a_record_of_robustness_above_the_clean_accuracy_leaves_it_open(trained, digits):
    told = proposal(Undo(trained, parse_normalization("half")), normalizations=(None,) * 2)
    told = replace(told, origin=replace(told.origin, robust_claims={"ra": 0.99}))
    with pytest.raises(CheckpointError):
        choose(told, digits, CPU)


def test_checkpoints_of_one_run_get_one_answer(trained, digits):
    young = copy.deepcopy(trained)
    with torch.no_grad():
        young.head.weight.mul_(0.95)
    both = choose_all((proposal(trained), proposal(young)), Asked(digits, THREAT), CPU)
    assert len({model.origin.normalization for model in both}) == 1
    assert both[0].origin.trials == both[1].origin.trials
    assert both[0].origin.trials[0].n == 2 * len(digits)
    torch.testing.assert_close(both[1](digits.x[:8]), young(digits.x[:8]))


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
