"""--normalize: names, numbers, and everything that cannot be meant."""

import pytest
import torch
from torch import nn

from robaudit.checkpoints import Classifier, Normalization, Origin, parse_normalization
from robaudit.errors import UsageError

ORIGIN = Origin("", None, "", "", "", "", 0)


def test_none():
    assert parse_normalization("none") is None


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "imagenet", "mnist", "svhn", "half"])
def test_names_and_their_numbers_say_the_same(name):
    named = parse_normalization(name)
    text = ";".join(",".join(map(str, part)) for part in (named.mean, named.std))
    numbers = parse_normalization(text)
    assert (numbers.mean, numbers.std) == (named.mean, named.std)
    assert parse_normalization(numbers.name) == numbers


def test_the_published_figures():
    cifar, imagenet = parse_normalization("CIFAR10"), parse_normalization("imagenet")
    assert cifar.mean == (0.4914, 0.4822, 0.4465)
    assert cifar.std == (0.2023, 0.1994, 0.2010)
    assert imagenet.mean == (0.485, 0.456, 0.406)
    assert imagenet.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    "text",
    [
        *("", "cifar", "0.5", "0.5;", ";", "0.5;0.5;0.5", "a;b", "0.5,;0.5,", "0.5,0.5;0.5"),
        *("0.5;0", "0.5;-1", "nan;1", "0.5;inf", "1,2,3;0,1,1"),
    ],
)
def test_what_cannot_be_meant(text):
    with pytest.raises(UsageError) as caught:
        parse_normalization(text)
    assert caught.value.exit_code == 2
    assert "m,m,m;s,s,s" in caught.value.advice


@pytest.mark.parametrize(("name", "channels"), [("cifar10", 1), ("cifar10", 4), ("mnist", 3)])
def test_other_channels(name, channels):
    normalization = parse_normalization(name)
    with pytest.raises(UsageError, match="channels"):
        normalization.for_channels(channels)
    with pytest.raises(UsageError, match="channels"):
        Classifier(nn.Flatten(), normalization, ORIGIN)(torch.ones(2, channels, 4, 4))


def test_one_number_is_for_every_channel():
    assert parse_normalization("half").for_channels(3) == Normalization(
        "half", (0.5,) * 3, (0.5,) * 3
    )


@pytest.mark.parametrize("name", ["cifar10", "half", "0.1,0.2,0.3;1,2,3"])
def test_the_classifier_applies_it(name):
    normalization = parse_normalization(name)
    x = torch.rand(2, 3, 4, 4)
    expected = x.clone()
    spread = normalization.for_channels(3)
    for channel in range(3):
        expected[:, channel] = (x[:, channel] - spread.mean[channel]) / spread.std[channel]
    classifier = Classifier(nn.Flatten(), normalization, ORIGIN)
    # One rounding each of the subtraction, the division and the float32 constants.
    torch.testing.assert_close(classifier(x), expected.flatten(1), rtol=1e-6, atol=1e-6)


def test_the_classifier_is_frozen_and_in_evaluation_mode():
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 2))
    classifier = Classifier(network, parse_normalization("half"), ORIGIN)
    assert not any(module.training for module in classifier.modules())
    assert not any(parameter.requires_grad for parameter in classifier.parameters())
    assert set(classifier.state_dict()) == {"network.2.weight", "network.2.bias"}
    classifier.train()
    assert network.training
