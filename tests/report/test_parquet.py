"""Parquet: the cells of the CSV, with types."""

import csv
import io
import sys

import pytest

from robaudit.errors import UsageError
from robaudit.report import to_csv
from robaudit.report.parquet import to_parquet


def test_it_holds_what_the_csv_holds(report, rename):
    parquet = pytest.importorskip("pyarrow.parquet")
    reports = [report, rename(report, "b.pt", 1.1)]
    table = parquet.read_table(io.BytesIO(to_parquet(reports)))
    rows = list(csv.DictReader(io.StringIO(to_csv(*reports))))
    assert table.num_rows == len(rows) == 2 * len(report.measurements)
    for name in rows[0].keys() - {"doubts"}:  # a list there
        kind = str(table.schema.field(name).type)
        read = {"string": str, "double": float, "int64": int}[kind]
        cells = [read(row[name]) if row[name] else None for row in rows]
        found = [None if cell == "" else cell for cell in table.column(name).to_pylist()]
        assert found == cells, name
    kinds = {name: str(table.schema.field(name).type) for name in ("value", "n", "eps", "warnings")}
    assert kinds == {
        "value": "double",
        "n": "int64",
        "eps": "double",
        "warnings": "list<element: string>",
    }


def test_added_columns(report):
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = parquet.read_table(io.BytesIO(to_parquet([report]))).to_pylist()
    pgd = {row["split"]: row for row in rows if row["name"] == "accuracy.pgd"}
    assert pgd["test"]["settings"] == '{"steps": 20, "restarts": 10, "step_size": 0.007}'
    assert pgd["test"]["data_sha256"] == report.data.sha256
    assert pgd["train"]["data_sha256"] == report.train_data.sha256
    (failed,) = [row for row in rows if row["status"] == "failed"]
    assert (failed["value"], failed["reason"]) == (None, "out of memory")
    (warned,) = [row for row in rows if row["warnings"]]
    assert warned["name"] == "flatness.average"


def test_without_pyarrow_the_extra_is_named(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match="pyarrow") as refused:
        to_parquet([report])
    assert "robaudit[parquet]" in refused.value.advice
