"""The JSON file: what is written is read again, and what is wrong is refused in one line."""

from __future__ import annotations

import json

import jsonschema
import pytest

from robaudit.errors import DataError, RobauditError, UsageError
from robaudit.report import read_report, render, schema_json, to_json, write_report


def test_round_trip(report, tmp_path):
    path = write_report(report, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "report.json"
    assert read_report(path) == read_report(path.parent) == report
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_writes_to_a_named_file_and_over_an_old_one(report, tmp_path, rename):
    path = write_report(report, tmp_path / "a.json")
    other = rename(report, "other.pt")
    assert write_report(other, path) == path
    assert read_report(path) == other


def test_schema_describes_what_is_written(report):
    schema = json.loads(schema_json())
    assert schema["$schema"].endswith("2020-12/schema")
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(json.loads(to_json(report)))


@pytest.mark.parametrize(
    "break_it",
    [
        lambda data: data.pop("threat"),
        lambda data: data.update(schema_version=2),
        lambda data: data.update(extra=1),
        lambda data: data["threat"].update(norm="l7"),
        lambda data: data["measurements"][0].update(value="0.8"),
        lambda data: data["measurements"][0].update(value=None),
        lambda data: data["measurements"][-1].update(reason=None),
        lambda data: data["measurements"][-1].update(reason=""),
        lambda data: data["measurements"][-1].update(value=0.1),
    ],
)
def test_schema_and_reader_refuse_the_same_breaks(report, tmp_path, break_it):
    data = json.loads(to_json(report))
    break_it(data)
    validator = jsonschema.Draft202012Validator(json.loads(schema_json()))
    assert not validator.is_valid(data)
    if data["measurements"][0]["value"] == "0.8":
        return  # the reader takes a number written as text, as pydantic does
    (tmp_path / "report.json").write_text(json.dumps(data))
    with pytest.raises(DataError):
        read_report(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 200_000, "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[]", "no schema_version"),
        ("{}", "no schema_version"),
        ('{"schema_version": "1"}', "no schema_version"),
        ('{"schema_version": true}', "no schema_version"),
        ('{"schema_version": 2}', "a newer robaudit"),
        ('{"schema_version": 0}', "an older robaudit"),
        ('{"schema_version": 1}', "is not valid: robaudit"),
    ],
)
def test_refuses_other_files(tmp_path, text, words):
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=words) as caught:
        read_report(tmp_path)
    assert "\n" not in caught.value.message


def test_refuses_a_missing_file(tmp_path):
    for path in (tmp_path, tmp_path / "none.json", tmp_path / "no" / "folder"):
        with pytest.raises(UsageError, match="no report at") as caught:
            read_report(path)
        assert caught.value.advice


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_no_number_that_is_not_finite_is_read(report, tmp_path, number):
    text = to_json(report).replace("67.3", number)
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(DataError):
        read_report(tmp_path)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_no_number_that_is_not_finite_is_written(change, tmp_path, number):
    report = change("wci", details={"layers": [{"trace": number}]})
    with pytest.raises(RobauditError, match=r"layers\[0\]\.trace"):
        write_report(report, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_several_reports_are_an_array(report, rename):
    other = rename(report, "other.pt")
    data = json.loads(render([report, other], "json"))
    assert [item["subject"]["source"] for item in data] == [report.subject.source, "other.pt"]
    assert json.loads(render([report], "json"))["schema_version"] == 1
