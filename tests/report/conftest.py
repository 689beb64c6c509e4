"""Reports built by hand, with the numbers a CIFAR-10 audit gives."""

from __future__ import annotations

import math
from typing import Any

import pytest

from robaudit.schema import Data, Git, Interval, Measurement, Provenance, Report, Subject, Threat


def interval(low: float, high: float, method: str = "clopper-pearson") -> Interval:
    return Interval(low=low, high=high, level=0.95, method=method)


def layers() -> list[dict[str, Any]]:
    shapes = [
        ("conv1", 2.31, 40.2),
        ("layer1.0.conv1", 5.1, 12.31),
        ("layer1.0.conv2", 4.7, 3.2),
        ("layer2.0.conv1", 7.7, 1.93),
        ("fc", 3.3, 22.5),
    ]
    total = sum(norm * math.sqrt(trace) for _, norm, trace in shapes)
    return [
        {
            "name": name,
            "frobenius": norm,
            "trace": trace,
            "standard_error": 0.03 * trace,
            "contribution": norm * math.sqrt(trace),
            "share": norm * math.sqrt(trace) / total,
        }
        for name, norm, trace in shapes
    ]


def measurements() -> list[Measurement]:
    accuracy = {"unit": "fraction", "n": 1000}
    loss = {"unit": "nats", "n": 1000}
    pgd = {"steps": 20, "restarts": 10, "step_size": 0.007}
    rows: list[dict[str, Any]] = [
        {
            "name": "accuracy.clean",
            "value": 0.842,
            "interval": interval(0.8179, 0.8641),
            "seconds": 0.3,
            **accuracy,
        },
        {
            "name": "accuracy.pgd",
            "value": 0.534,
            "interval": interval(0.5025, 0.5653),
            "standard_error": 0.0158,
            "settings": pgd,
            "seconds": 12.1,
            **accuracy,
        },
        {
            "name": "accuracy.autoattack",
            "value": 0.473,
            "interval": interval(0.4417, 0.5045),
            "settings": {"version": "standard"},
            "details": {"attacks": {"apgd-ce": 0.501, "apgd-t": 0.473}},
            "seconds": 182.4,
            **accuracy,
        },
        {
            "name": "accuracy.pgd",
            "split": "train",
            "value": 0.713,
            "interval": interval(0.6839, 0.7409),
            "settings": pgd,
            **accuracy,
        },
        {
            "name": "loss.robust",
            "value": 1.9342,
            "standard_error": 0.0431,
            "interval": interval(1.8497, 2.0187, "normal"),
            **loss,
        },
        {
            "name": "gap.error",
            "split": "gap",
            "value": 0.179,
            "interval": interval(0.137, 0.221, "newcombe"),
            **accuracy,
        },
        {
            "name": "gap.loss",
            "split": "gap",
            "value": 0.83,
            "standard_error": 0.052,
            "interval": interval(0.7281, 0.9319, "normal"),
            **loss,
        },
        {
            "name": "wci",
            "value": 67.3,
            "standard_error": 0.41,
            "n": 1000,
            "details": {
                "layers": layers(),
                "quantity": "hessian",
                "bias": -0.0123,
                "estimator": "exact",
                "uncovered": [],
            },
        },
        {
            "name": "hessian.largest",
            "value": 1990.31,
            "n": 1000,
            "details": {"eigenvalues": [1990.31, 800.0], "residuals": [0.5, 0.7]},
        },
        {"name": "hessian.smallest", "value": -41.7, "n": 1000},
        {"name": "hessian.relative_largest", "value": 71.32, "n": 1000},
        {
            "name": "hessian.trace",
            "value": 81234.5,
            "standard_error": 1200.0,
            "n": 1000,
            "details": {"density": {"grid": [-40.0, 0.0, 2000.0], "density": [1e-4, 1.0, 1e-3]}},
        },
        {"name": "trh.top_layer", "value": 3.21e-4, "standard_error": 2.2e-5, "n": 1000},
        {
            "name": "flatness.average",
            "value": 0.412,
            "standard_error": 0.0213,
            "details": {"reference": 1.9342, "perturbed": [2.3, 2.4], "xi": 0.5},
            "warnings": ["2 of 12 tensors have zero norm and are left alone"],
            **loss,
        },
        {"name": "flatness.worst", "status": "failed", "reason": "out of memory", "n": 1000},
    ]
    return [Measurement(**row) for row in rows]


@pytest.fixture
def report() -> Report:
    return Report(
        robaudit="0.1.0",
        subject=Subject(
            source="runs/digits/at_epoch_90.pt",
            sha256="9f2c" * 16,
            format="state dict",
            architecture="PreActResNet-18",
            identified_by="names and shapes of 62 tensors",
            normalization="cifar10",
            parameters=11_173_962,
        ),
        data=Data(name="cifar10", split="test", n=1000, sha256="ab12" * 16, classes=10),
        train_data=Data(name="cifar10", split="train", n=1000, sha256="cd12" * 16, classes=10),
        threat=Threat(norm="linf", eps=8 / 255),
        measurements=measurements(),
        provenance=Provenance(
            argv=["robaudit", "audit", "runs/digits/at_epoch_90.pt", "--data", "cifar10"],
            seed=0,
            started="2025-11-20T23:12:04Z",
            seconds=402.3,
            versions={"torch": "2.9.1"},
            device="cpu",
            precision="fp32",
            batch_size=256,
            git=Git(commit="0123abcd" * 5, dirty=False),
        ),
    )


@pytest.fixture
def change(report):
    """``change("wci", value=1.0)``: the report with one measurement changed, or left out."""

    def changed(name: str, split: str = "test", /, drop: bool = False, **update: Any) -> Report:
        rows = []
        for m in changed.report.measurements:
            if (m.name, m.split) != (name, split):
                rows.append(m)
            elif not drop:
                rows.append(Measurement.model_validate({**m.model_dump(), **update}))
        changed.report = changed.report.model_copy(update={"measurements": rows})
        return changed.report

    changed.report = report
    return changed


@pytest.fixture
def rename():
    """The report under another file name, with all values scaled."""

    def renamed(report: Report, source: str, scale: float = 1.0) -> Report:
        rows = [
            m if m.value is None else m.model_copy(update={"value": m.value * scale})
            for m in report.measurements
        ]
        subject = report.subject.model_copy(update={"source": source})
        return report.model_copy(update={"subject": subject, "measurements": rows})

    return renamed
