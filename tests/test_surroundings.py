"""Tests run with one thread and without a GPU; those marked for one see it, and come last."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from robaudit.engine import resolve_device

# A machine with three GPUs, as far as torch is asked.
GPUS = """
import torch

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 3
"""
TESTS = """
import os, subprocess, sys
import pytest, torch

def child():
    code = "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"
    return subprocess.check_output([sys.executable, "-c", code], text=True).strip()

@pytest.fixture(scope="session")
def seen():
    return torch.cuda.is_available()

@pytest.mark.gpu
def test_for_a_gpu():
    assert torch.cuda.is_available() and torch.cuda.device_count() == 3
    assert child() == repr(os.environ["EXPECTED"] or None)

@pytest.mark.parametrize("time", [1, 2])
def test_for_none(time, seen):
    assert not seen and not torch.cuda.is_available() and torch.cuda.device_count() == 0
    assert child() == "''"
    assert torch.get_num_threads() == 1
"""


def test_nothing_here_sees_a_gpu_or_takes_a_second_thread():
    assert not torch.cuda.is_available()
    assert torch.cuda.device_count() == 0
    assert resolve_device("auto") == torch.device("cpu")
    assert torch.get_num_threads() == 1
    assert (os.environ["CUDA_VISIBLE_DEVICES"], os.environ["OMP_NUM_THREADS"]) == ("", "1")


@pytest.mark.slow
@pytest.mark.parametrize("visible", [None, "2,0"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_only_tests_that_are_marked_see_a_gpu(visible, workers, tmp_path):
    (tmp_path / "gpus.py").write_text(GPUS)
    (tmp_path / "test_it.py").write_text(TESTS)
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": str(tmp_path), "EXPECTED": visible or ""}
    environment |= {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    words = ["-p", "gpus", "-p", "no:cacheprovider", "-n", workers, "-rA", "-c", os.devnull]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *words, "--rootdir", tmp_path, tmp_path],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "3 passed" in ran.stdout
    order = [line.rpartition("::")[2] for line in ran.stdout.splitlines() if "PASSED " in line]
    assert order[-1] == "test_for_a_gpu"
