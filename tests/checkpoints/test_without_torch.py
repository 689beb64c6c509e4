"""Looking at a file imports no torch."""

import subprocess
import sys
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
    torch.save(torch.nn.Linear(2, 2), tmp_path / "d.pt")
    return sorted(map(str, tmp_path.iterdir()))


def test_inspection_imports_no_torch(files):
    root = Path(robaudit.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *files], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["15", "15", "15", "0"]
