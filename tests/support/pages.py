"""Reports furnished with every part that a page can show, and poisoned in every text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robaudit.report.gallery import Gallery, write_gallery
from robaudit.report.landscape import Landscape, Losses, Model
from robaudit.report.landscape_npz import write_npz
from robaudit.schema import Measurement, Report

HOSTILE = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>\x1b[31m{{7*7}}\u202e"


def gallery(shape=(8, 8), n=3, seed=0):
    random = np.random.default_rng(seed)
    pictures = [random.integers(0, 256, (n, *shape), dtype=np.uint8) for _ in range(3)]
    return Gallery(
        *pictures,
        index=np.arange(n) + 40,
        label=np.arange(n),
        clean_class=np.arange(n),
        clean_confidence=np.full(n, 0.973),
        adversarial_class=np.arange(n) + np.array([1] + [0] * (n - 1)),
        adversarial_confidence=np.full(n, 0.614),
        factor=5.0,
    )


def furnished(report: Report, folder: Path) -> Report:
    """The report with every part; gallery and landscape are written to the folder."""
    write_gallery(gallery(), folder / "gallery.npz")
    s = np.linspace(-1, 1, 5)
    losses = {kind: Losses(s**2 + at, 0.1 + 0 * s) for at, kind in enumerate(("clean", "robust"))}
    write_npz(
        Landscape({"title": "t"}, ("distance s",), (s,), (Model("m.pt", losses),)),
        folder / "landscape.npz",
    )
    curve = [
        {"eps": 4 / 255, "value": 0.7, "low": 0.67, "high": 0.73},
        {"eps": 8 / 255, "value": 0.534, "low": 0.5025, "high": 0.5653},
    ]
    parts = {
        "attacks": {"apgd-ce": 0.501, "square": 0.473},
        "passes": {"apgd-ce": [1234, 1200], "square": [98765, 0]},
        "diagnostics": {"attacked": 842, "stuck": 3},
    }
    sweep = [{"xi": 0.1, "value": 0.1, "standard_error": 0.01}, {"xi": 0.5, "value": 0.412}]
    rises = {"reference": 1.93, "perturbed": [2.3, 2.4], "xi": 0.5, "sweep": sweep}
    return _with(report, {
        "accuracy.pgd": {"details": {"forwards": 21000, "backwards": 20000, "curve": curve}},
        "accuracy.autoattack": {"details": parts},
        "flatness.average": {"details": rises},
    })  # fmt: skip


def poisoned(report: Report) -> Report:
    """Foreign text in every place that a checkpoint, data set or report file can reach."""
    wci = report.get("wci")
    assert wci is not None
    layers = [dict(row, name=HOSTILE + row["name"]) for row in wci.details["layers"]]
    parts = {"attacks": {HOSTILE: 0.5}, "engine": [HOSTILE], "passes": {HOSTILE: [HOSTILE] * 2}}
    changed = _with(report, {
        "wci": {"details": {**wci.details, "layers": layers, "estimator": HOSTILE}},
        "accuracy.autoattack": {"details": parts, "settings": {HOSTILE: HOSTILE}},
        "flatness.worst": {"reason": HOSTILE},
        "flatness.average": {"warnings": [HOSTILE]},
        "hessian.smallest": {"name": HOSTILE, "unit": HOSTILE},
    })  # fmt: skip
    texts = ("source", "format", "architecture", "identified_by", "normalization", "sha256")
    own = {"argv": ["robaudit", HOSTILE], "device": HOSTILE, "versions": {HOSTILE: HOSTILE}}
    return changed.model_copy(
        update={
            "subject": report.subject.model_copy(update=dict.fromkeys(texts, HOSTILE)),
            "data": report.data.model_copy(update={"name": HOSTILE}),
            "provenance": report.provenance.model_copy(update=own),
            "warnings": [HOSTILE],
        }
    )


def _with(report: Report, updates: dict[str, dict[str, Any]]) -> Report:
    rows = [
        Measurement.model_validate({**m.model_dump(), **updates.get(m.name, {})})
        if m.split == report.data.split
        else m
        for m in report.measurements
    ]
    return report.model_copy(update={"measurements": rows})
