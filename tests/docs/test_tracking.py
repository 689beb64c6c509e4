"""The recipe for MLflow, with the real library and a file store."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import robaudit as ra
from robaudit.checkpoints import samples_dir

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "tracking.md"


def test_the_recipe_for_mlflow_logs_every_number(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    script = re.search(r'title="to_mlflow.py"\n(.*?)```', PAGE.read_text("utf-8"), re.S)[1]
    (tmp_path / "to_mlflow.py").write_text(script)
    report = ra.audit_checkpoint(
        samples_dir() / "robust.pt",
        preset="quick",
        data="digits",
        n=8,
        gap=False,
        out=tmp_path / "report",
    )
    subprocess.run([sys.executable, "to_mlflow.py", "report"], cwd=tmp_path, check=True)
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    logged = run.data.metrics
    measured = {f"{m.split}.{m.name}": m.value for m in report.measurements if m.value is not None}
    assert set(logged) == set(measured)
    assert all(logged[name] == pytest.approx(value) for name, value in measured.items())
    assert run.data.params["sha256"] == report.subject.sha256
    assert run.data.tags["doubted"] == str(any(m.doubts for m in report.measurements))
    stored = Path(run.info.artifact_uri.removeprefix("file://")) / "robaudit" / "report.json"
    assert stored.is_file()
