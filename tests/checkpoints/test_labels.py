"""Outputs and labels: whatever does not belong together is said, with what to do about it."""

import numpy as np
import pytest
import torch
from torch import nn

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Pgd
from robaudit.checkpoints import load
from robaudit.checkpoints.labels import check_numbering, classes_guessed
from robaudit.data import load_examples
from robaudit.errors import CheckpointError, DataError
from robaudit.types import Examples, ThreatModel


def examples_of(x, y, classes=None):
    return Examples(x, y, torch.arange(len(x)), "mine", "test", "0" * 64, classes)


def marked(labels, k):
    """Images that show their class: pixel i of class i is white."""
    x = torch.full((len(labels), 1, 4, 4), 0.2)
    x.flatten(1)[torch.arange(len(labels)), labels] = 1.0
    return x


class Reads(nn.Module):
    """Right on every marked image, of ``outputs`` classes; ``moves`` renumbers its outputs."""

    def __init__(self, outputs, scale=9.0):
        super().__init__()
        self.fc = nn.Linear(16, outputs)
        with torch.no_grad():
            self.fc.weight.copy_(scale * torch.eye(outputs, 16))
            self.fc.bias.zero_()

    def forward(self, x):
        return self.fc(x.flatten(1))


def shown(truth, k=12):
    return torch.arange(120) % k if truth is None else truth


TEXT = sorted(range(12), key=str)


@pytest.mark.parametrize(
    ("numbered", "words"),
    [
        (lambda true: torch.tensor([TEXT.index(int(t)) for t in true]), "sorted as text"),
        (lambda true: true + 1, "counted from 0, not from 1"),
        (lambda true: (true + 5) % 12, "renumbered"),
    ],
)
def test_labels_in_another_order_are_named(numbered, words):
    true = torch.arange(120) % 12
    y = numbered(true)
    examples = examples_of(marked(true, 12), y)
    model = Reads(14)
    accuracy = float((model(examples.x).argmax(1) == y).float().mean())
    with pytest.raises(DataError, match=words) as caught:
        check_numbering(model, examples, accuracy)
    assert caught.value.exit_code == 4
    with pytest.raises(DataError, match=words):
        load(model, examples=examples)


def test_a_subset_of_many_classes_is_named():
    true = torch.tensor([1, 4, 9, 13])[torch.arange(80) % 4]
    y = torch.arange(80) % 4
    with pytest.raises(DataError, match="a subset of the classes in their order"):
        check_numbering(Reads(16), examples_of(marked(true, 16), y), 0.0)


def test_an_untrained_network_is_no_renumbering():
    torch.manual_seed(0)
    y = torch.randint(0, 10, (300,))
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    check_numbering(network, examples_of(torch.rand(300, 1, 4, 4), y), 0.1)
    constant = Reads(10, scale=0.0)
    check_numbering(constant, examples_of(marked(y, 10), y), 0.1)


def test_the_right_numbering_is_left_alone():
    y = torch.arange(100) % 10
    check_numbering(Reads(10), examples_of(marked(y, 10), y), 1.0)


def test_of_one_class_all_outputs_are_guessed_among():
    zeros = torch.zeros(20, dtype=torch.long)
    assert classes_guessed(examples_of(marked(zeros, 10), zeros), 10) == 10
    assert classes_guessed(examples_of(marked(zeros, 10), zeros, 1), 10) == 10
    some = torch.arange(20) % 10
    assert classes_guessed(examples_of(marked(some, 10), some), 11) == 10
    # A network that calls a tenth of them 0 guesses; one that calls all of them 0 does not.
    load(Reads(10), examples=examples_of(marked(zeros, 10), zeros))
    other = torch.arange(100) % 10
    with pytest.raises(CheckpointError, match="guessing among 10 classes"):
        load(Reads(10), examples=examples_of(marked(other, 10), torch.zeros(100, dtype=torch.long)))


@pytest.mark.parametrize("labels", [[0, 1], [0, 0]])
def test_one_output_tells_no_classes_apart(labels):
    y = torch.tensor(labels * 10)
    with pytest.raises(CheckpointError, match="one output") as caught:
        load(Reads(1), examples=examples_of(marked(y, 2), y))
    assert caught.value.exit_code == 4
    assert "zeros_like" in caught.value.advice


@pytest.mark.parametrize("kind", ["twice", "uint8"])
def test_black_images_are_refused(tmp_path, kind):
    y = torch.arange(40) % 10
    x = marked(y, 10).numpy()
    x = (x / 255).astype(np.float32) if kind == "twice" else x.astype(np.uint8)
    np.savez(tmp_path / "x.npz", x=x, y=y.numpy())
    with pytest.raises(DataError, match="black") as caught:
        load(Reads(10), examples=load_examples(str(tmp_path / "x.npz")))
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("classes", [10, None])
def test_outputs_that_no_label_stands_for_are_counted(classes):
    y = torch.arange(40) % 10
    x = marked(y, 11)
    x.flatten(1)[:3, 10] = 1.01  # three that go to the eleventh output
    x.clamp_(0, 1)
    x[:3].flatten(1)[:, :10] = 0.1
    x.flatten(1)[:3, :10] = 0.1
    examples = examples_of(x, y, classes)
    model = Reads(11)
    report = audit(
        model, examples, ThreatModel("linf", 0.6), Plan(probes=(Pgd(5, 1, 0.25),))
    ).report
    said = [text for text in report.warnings if "11 outputs" in text]
    assert len(said) == 1
    assert "3 clean" in said[0]
    found = int(said[0].split(" adversarial")[0].rpartition("and ")[2])
    assert 3 <= found <= 40
    fits = audit(Reads(10), examples_of(marked(y, 10), y, classes), None, Plan()).report
    assert not [text for text in fits.warnings if "outputs" in text]
