"""Robust overfitting at the size of CIFAR-10, for a machine with a GPU.

    python studies/cifar10.py --out cifar10-study --minutes 240 --data cifar10_jpeg_train.npz

Trains PreActResNet-18 by adversarial training for 200 epochs under the WCI paper's schedules, in
bfloat16, tests every tenth epoch and takes every measure of the piecewise run. The same command
goes on where it stopped; it reports as `studies/overfitting.py` does.
"""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from overfitting import Scale, run_at
from overfitting_report import report
from PIL import Image
from running import Study, main
from torchvision.datasets import CIFAR10

from robaudit.atomic_write import atomic_write

_FILE = "cifar10_jpeg_train.npz"
_THERE = Path(os.environ.get("ROBAUDIT_REAL_DATA", "")) / _FILE
OPTIONS = {
    "--data": {
        "type": Path,
        "default": _THERE if _THERE.is_file() else Path("data"),
        "help": "an npz of JPEG images (jpeg, offsets, y), the test images in the file of the same "
        "name with test in place of train; or the folder of torchvision's CIFAR-10",
    },
    "--n": {"type": int, "help": "train on the first n images only, to try it out"},
    "--epochs": {
        "type": int,
        "help": "in place of 200; the falls stay at a half and three quarters",
    },
}


def images(study: Study, seed: int) -> str:
    """The data set as a file that `robaudit train` reads, made once; the same for every seed."""
    path = study.out / "cifar10.npz"
    if not path.is_file():
        arrays = {}
        for split in ("train", "test"):
            read = decoded if study.given.data.suffix == ".npz" else installed
            arrays[f"x_{split}"], arrays[f"y_{split}"] = read(study.given.data, split)
        blob = io.BytesIO()
        np.savez(blob, **arrays)
        atomic_write(path, blob.getvalue())
    return str(path)


def decoded(path: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images ``(n, 3, 32, 32)`` and labels of a file of JPEG images."""
    with np.load(path.with_name(path.name.replace("train", split)), allow_pickle=False) as file:
        blob, offsets, y = file["jpeg"].tobytes(), file["offsets"], file["y"]
    ends = pairwise(offsets)
    pictures = [np.asarray(Image.open(io.BytesIO(blob[a:b])).convert("RGB")) for a, b in ends]
    return np.stack(pictures).transpose(0, 3, 1, 2), y.astype(np.int64)


def installed(folder: Path, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The same of torchvision's CIFAR-10."""
    found = CIFAR10(str(folder), train=split == "train")
    return found.data.transpose(0, 3, 1, 2), np.asarray(found.targets)


FULL = Scale(
    200, (100, 150), 10, 1, 1, 1000, 1000, (100,), 8 / 255,
    'batch_size = 128\n[attack]\nstep_size = "2/255"\n[augment]\npad = 4\nflip = true\n',
    ("--arch", "preact_resnet(depth=18)", "--precision", "bf16", "--normalize", "cifar10"), images,
)  # fmt: skip
SMOKE = replace(
    FULL, epochs=2, falls=(1, 2), every=2, test_n=16, measure_n=8,
    words=("--n", 32, "--arch", "preact_resnet(depth=18,width=4)", "--normalize", "cifar10"),
)  # fmt: skip


def run(study: Study) -> None:
    scale, n, epochs = SMOKE if study.smoke else FULL, study.given.n, study.given.epochs
    if epochs is not None:
        scale = replace(scale, epochs=epochs, falls=(epochs // 2, 3 * epochs // 4))
    if n is not None:
        own = min(n, scale.test_n)
        words = (*scale.words, "--n", n)
        scale = replace(scale, words=words, test_n=own, measure_n=min(n, scale.measure_n))
    run_at(study, scale)


if __name__ == "__main__":
    sys.exit(main(__doc__ or "", run, report, options=OPTIONS))
