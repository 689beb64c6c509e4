"""Looking at a file imports no torch."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import robaudit

SCRIPT = """
import sys
import robaudit.checkpoints
from robaudit.checkpoints import Normalization, findings, inspect_file, parse_normalization
from robaudit.checkpoints import read_container, samples_dir
for path in sys.argv[1:]:
    print(inspect_file(path, hash=True).parameters)
loaded = {"torch", "safetensors", "numpy"} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.fixture
def files(tmp_path):
    state = {"fc.weight": torch.ones(3, 4), "fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.safetensors")
    net = torch.nn.Linear(2, 2)
    torch.save(net, tmp_path / "d.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, and its files are about
        torch.jit.script(net).save(tmp_path / "e.pt")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "config.json").write_text('{"model_type": "vit"}')
    save_file({"w": torch.ones(3, 3)}, tmp_path / "f" / "model.safetensors")
    return sorted(map(str, tmp_path.iterdir()))


def test_inspection_imports_no_torch(files):
    root = Path(robaudit.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *files], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["15", "15", "15", "6", "6", "9"]
