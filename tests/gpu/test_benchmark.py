"""``benchmarks/gpu.py`` runs every row, keeps to its time, and compares with its targets."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    import gpu

    return gpu


@pytest.fixture
def bench(gpu):
    import gpu_bench

    return gpu_bench


def ran(tmp_path, *words):
    out = tmp_path / "table.txt"
    command = [sys.executable, str(FOLDER / "gpu.py"), "--smoke", "--out", str(out), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return out.read_text()


def check(text, rows):
    assert "failed" not in text
    assert "stopped" not in text
    assert "not reached" not in text
    assert " NOT" not in text  # every break is confirmed
    for row in rows:
        assert f"\n{row} (" in text
    assert "target <=" not in text  # nothing is claimed of a smoke run


@pytest.mark.slow
def test_every_row_runs_on_the_cpu(tmp_path, gpu):
    text = ran(tmp_path, "--device", "cpu")
    assert text.startswith("not a GPU")
    check(text, [row.name for row in gpu.ROWS])


@pytest.mark.gpu
def test_every_row_runs_on_a_gpu(tmp_path, gpu):
    check(ran(tmp_path, "--device", "cuda"), [row.name for row in gpu.ROWS])


def test_without_a_gpu_it_says_so():
    done = subprocess.run(
        [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "only --smoke" in done.stderr


def test_the_peak_is_that_of_the_longest_name(gpu):
    assert gpu.peak_of("NVIDIA H100 80GB HBM3")[0] == "H100"
    assert gpu.peak_of("NVIDIA H100 PCIe")[0] == "H100 PCIe"
    assert gpu.peak_of("NVIDIA L40S")[0] == "L40S"
    assert gpu.peak_of("NVIDIA A100-SXM4-80GB")[0] == "A100"
    assert gpu.peak_of("another card") is None
    assert gpu.peak_of("NVIDIA A10G") is None  # not an A10


def test_a_row_is_stopped_and_those_without_time_are_named(gpu, bench):
    rows, lines = bench, []

    def long(bench):
        time.sleep(5)
        yield rows.Line("never", 1.0)

    class Bench:
        def clean_up(self):
            lines.append("cleaned")

    listed = [rows.Row("first", long, 0.2), rows.Row("second", long, 60, least=50)]
    gpu.measured(Bench(), listed, 0.5, lines.append, None, claims=True)
    assert lines[1:] == [
        "  stopped: its time is used up", "cleaned", "not reached, as no time was left: second",
    ]  # fmt: skip


def test_ratios_and_shares_stand_beside_their_targets(gpu, bench):
    peak = "a card", (100.0, 50.0, 10.0)
    line = bench.Line("PGD", 2.0, "peer", 4.0, 0.4, images=100, work=80e12, share=0.35)
    (text,) = gpu.described(None, line, peak, claims=True)
    assert "ratio 0.500 (target <= 0.4: MISSED)" in text
    assert "50 images/s" in text
    assert "40.0 % of bf16 peak (target >= 35 %: met)" in text


def test_operations_are_counted_forth_and_back_to_the_image(bench):
    import torch
    from torch import nn

    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)).requires_grad_(False)
    found = bench.counted(network, torch.rand(1, 1, 4, 4))
    products = 2 * 9 * 4 + 8 * 3
    assert (found.forward, found.backward) == (2 * products, 2 * products)
