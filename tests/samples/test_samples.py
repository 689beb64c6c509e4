"""The sample checkpoints are what they are said to be, and their audited numbers come out again."""

import importlib.util
import json
from pathlib import Path

import pytest

from robaudit.checkpoints import samples_dir

FOLDER = Path(__file__).parents[2] / "sample_checkpoints"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())["checkpoints"]
AUDITED = ["standard.pt", "robust.pt", "overfit.pt", "trades.safetensors", "smooth.safetensors"]


def value(name, measurement, split="test"):
    return EXPECTED[name][f"{measurement}/{split}"]["value"]


@pytest.fixture(scope="module")
def measured():
    spec = importlib.util.spec_from_file_location("expect", FOLDER / "expect.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.measured


@pytest.mark.slow
@pytest.mark.parametrize("name", [*AUDITED, "epochs/epoch_030.pt"])
def test_audited_numbers_come_out_again(name, measured):
    """Another CPU may use other kernels, and an attack may take another turn on a few examples.

    So a number may move by a third of its standard error, or by 1 % where that is more; the same
    machine gives the same digits.
    """
    found = measured(FOLDER / name)
    assert set(EXPECTED[name]) <= set(found)
    for key, want in EXPECTED[name].items():
        allowed = max(want["standard_error"] / 3, 0.01 * abs(want["value"]), 1e-4)
        assert found[key]["value"] == pytest.approx(want["value"], abs=allowed), key


def test_every_sample_has_expected_numbers():
    files = {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.pt")}
    files |= {p.relative_to(FOLDER).as_posix() for p in FOLDER.rglob("*.safetensors")}
    assert files == set(EXPECTED)


def test_the_installed_samples_are_these():
    for name in EXPECTED:
        assert (samples_dir() / name).read_bytes() == (FOLDER / name).read_bytes()


def test_the_standard_model_is_broken_and_the_others_are_not():
    assert value("standard.pt", "accuracy.clean") > 0.98
    assert value("standard.pt", "accuracy.pgd") < 0.1  # below guessing among ten classes
    for name in AUDITED[1:]:
        assert value(name, "accuracy.pgd") > 0.65, name


@pytest.mark.parametrize("measure", ["gap.loss", "wci", "flatness.average", "flatness.worst"])
def test_the_overfitted_model_is_told_from_the_early_stopped_one(measure):
    """By more than two standard errors of the difference, in every measure of the demo."""
    split = "gap" if measure == "gap.loss" else "test"
    pairs = [EXPECTED[name][f"{measure}/{split}"] for name in ("overfit.pt", "robust.pt")]
    error = sum(pair["standard_error"] ** 2 for pair in pairs) ** 0.5
    assert pairs[0]["value"] - pairs[1]["value"] > 2 * error


def test_robust_overfitting_shows_along_the_epochs():
    """Test robust loss falls, then rises again while the training one keeps falling."""
    epochs = sorted(name for name in EXPECTED if name.startswith("epochs/"))
    assert len(epochs) == 8
    test = [value(name, "loss.robust") for name in epochs]
    train = [value(name, "loss.robust", "train") for name in epochs]
    lowest = test.index(min(test))
    assert 0 < lowest < len(epochs) - 1
    assert test[-1] > 1.3 * test[lowest]
    assert all(b < a for a, b in zip(train[lowest:], train[lowest + 1 :], strict=False))
