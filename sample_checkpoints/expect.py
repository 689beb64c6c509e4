"""Audit every sample checkpoint and write the numbers to ``expected.json``, which a test holds.

    python sample_checkpoints/expect.py

One audit a checkpoint: the quick preset, 256 examples of each split, seed 0, on a CPU in float32.
Takes about three minutes on two cores.
"""

from __future__ import annotations

import json
from pathlib import Path

import robaudit as ra
from robaudit.audit import audit, preset

HERE = Path(__file__).parent
N, SEED = 256, 0


def measured(path: Path) -> dict[str, dict[str, float]]:
    """``"name/split"`` to value and standard error."""
    threat = ra.ThreatModel("linf", 0.15)
    test = ra.load_examples("digits", n=N)
    train = ra.load_examples("digits", split="train", n=N)
    model = ra.load(path, device="cpu")
    done = audit(model, test, threat, preset("quick"), train=train, seed=SEED, precision="fp32")
    return {
        f"{m.name}/{m.split}": {"value": m.value, "standard_error": m.standard_error or 0.0}
        for m in done.report.measurements
        if m.value is not None
    }


def checkpoints() -> list[Path]:
    """Every sample, in a fixed order."""
    found = [*HERE.glob("*.pt"), *HERE.glob("*.safetensors"), *HERE.glob("epochs/*.pt")]
    return sorted(found)


if __name__ == "__main__":
    numbers = {}
    for path in checkpoints():
        numbers[path.relative_to(HERE).as_posix()] = measured(path)
        print(path.name)
    settings = {"preset": "quick", "n": N, "seed": SEED, "data": "digits", "eps": 0.15}
    text = json.dumps({"settings": settings, "checkpoints": numbers}, indent=1)
    (HERE / "expected.json").write_text(text + "\n", encoding="utf-8")
