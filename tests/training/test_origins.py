"""Hyper-parameters of a checkpoint, as its training run recorded them."""

import json

import pytest

from robaudit.training.origins import hyperparameters, run_of


@pytest.fixture
def run(tmp_path):
    recipe = {
        "about": "x", "objective": "mart", "penalty": 5.0, "epochs": 9, "seed": 3, "awp": None,
        "swa": {"decay": 0.9, "after": 0}, "schedule": {"kind": "cosine", "warmup": 0},
        "threat": {"norm": "linf", "eps": None},
    }  # fmt: skip
    said = {"recipe": recipe, "threat": {"norm": "linf", "eps": 0.15}, "every": 3, "track": []}
    (tmp_path / "run.json").write_text(json.dumps(said))
    return tmp_path


def test_what_a_run_recorded(run):
    file = run / "checkpoints" / "epoch_006.safetensors"
    assert run_of(file) == run
    assert hyperparameters(file) == {
        "objective": {"kind": "mart", "penalty": 5.0}, "seed": 3, "awp": None, "swa": None,
        "schedule": {"kind": "cosine", "warmup": 0, "epochs": 9},
        "threat": {"norm": "linf", "eps": 0.15}, "epoch": 6,
    }  # fmt: skip


def test_averaging_is_a_setting_of_the_averaged_network_alone(run):
    trained, averaged = (
        hyperparameters(run / folder / "epoch_006.safetensors")
        for folder in ("checkpoints", "averaged")
    )
    assert averaged.pop("swa") == {"decay": 0.9, "after": 0}
    assert trained.pop("swa") is None
    assert trained == averaged


@pytest.mark.parametrize("text", [None, "{", "[]", '{"layout": 1}', '{"recipe": 3}'])
def test_other_files_have_none(tmp_path, text):
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    assert hyperparameters(tmp_path / "checkpoints" / "epoch_001.safetensors") == {}
    assert run_of(tmp_path / "epoch_001.safetensors") is None
