"""What a measuring command prints and writes, and that the two agree."""

import csv
import io
import json
import re

import jsonschema
import numpy as np
import pytest
from support.console import ROBUST, SAMPLES, Terminal, entries, robaudit

from robaudit.report import read_report, to_csv, to_markdown

QUICK = ("--n", 8, "--steps", 2)
FILES = [
    "examples.npz", "gallery.npz", "layers.csv", "measurements.csv", "report.html", "report.json",
    "report.md",
]  # fmt: skip


@pytest.fixture(scope="module")
def valid():
    """Checks an object against what `robaudit schema` prints."""
    ran = robaudit("schema")
    assert (ran.code, ran.err) == (0, "")
    schema = json.loads(ran.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).validate


def without_seconds(report):
    """A report as an object, without what differs from run to run."""
    data = json.loads(report) if isinstance(report, str) else report
    data = {**data, "provenance": None}
    return {**data, "measurements": [{**m, "seconds": None} for m in data["measurements"]]}


# One checkpoint


def test_json_is_one_document_that_fits_the_schema(audited, valid):
    folder, out = audited
    data = json.loads(out)  # which takes nothing before or after it
    valid(data)
    assert data == json.loads((folder / "report.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        valid({**data, "threat": {"norm": "l7", "eps": 0.1}})


def test_the_folder_holds_the_report_in_every_form(audited):
    folder, _ = audited
    pictures = [name for name in entries(folder) if name.endswith((".svg", ".png"))]
    assert entries(folder) == sorted([*FILES, *pictures])
    assert [path.name for path in folder.parent.iterdir()] == ["report"]
    report = read_report(folder)
    assert (folder / "report.md").read_text(encoding="utf-8") == to_markdown(report)
    assert (folder / "measurements.csv").read_text(encoding="utf-8") == to_csv(report)
    with (folder / "layers.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    layers = report.get("wci").details["layers"]
    assert [row["layer"] for row in rows] == [layer["name"] for layer in layers]
    assert [float(row["trace"]) for row in rows] == [layer["trace"] for layer in layers]


def test_per_example_outcomes_are_what_the_report_sums_up(audited):
    folder, _ = audited
    report = read_report(folder)
    outcomes = np.load(folder / "examples.npz", allow_pickle=False)
    for split in ("test", "train"):
        for name in ("accuracy.clean", "accuracy.pgd", "loss.clean", "loss.robust"):
            rows = outcomes[f"{split}.{name}"]
            assert rows.shape == (32,)
            expected = rows.astype(np.float64).mean()
            assert report.get(name, split).value == pytest.approx(expected, rel=1e-12)
        assert outcomes[f"{split}.index"].tolist() == list(range(32))
        robust, right = outcomes[f"{split}.accuracy.pgd"], outcomes[f"{split}.accuracy.clean"]
        assert not (robust & ~right).any()
        assert (outcomes[f"{split}.loss.robust"] >= outcomes[f"{split}.loss.clean"]).all()
        # Rows are examples, columns are layers.
        layers = report.get("wci", split).details["layers"]
        means = outcomes[f"{split}.trace"].mean(0)
        assert means == pytest.approx([layer["trace"] for layer in layers], rel=1e-6)


def test_gaps_are_test_minus_train(audited):
    report = read_report(audited[0])
    error = report.get("accuracy.pgd", "train").value - report.get("accuracy.pgd", "test").value
    loss = report.get("loss.robust", "test").value - report.get("loss.robust", "train").value
    assert report.get("gap.error").value == pytest.approx(error, abs=1e-12)
    assert report.get("gap.loss").value == pytest.approx(loss, abs=1e-12)


def test_csv_has_a_row_for_every_measurement():
    ran = robaudit("attack", ROBUST, *QUICK, "--format", "csv", "--quiet")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    assert [row["name"] for row in rows] == [
        "accuracy.clean", "loss.clean", "accuracy.pgd", "loss.robust",
    ]  # fmt: skip
    assert all(row["n"] == "8" and 0 <= float(row["value"]) < 10 for row in rows)


def test_markdown_and_table_show_the_measured_values():
    values = {
        m["name"]: m["value"]
        for m in json.loads(robaudit("attack", ROBUST, *QUICK, "--json", "-q").out)["measurements"]
    }
    shown = f"{100 * values['accuracy.pgd']:.1f}"
    for format, heading in (("md", "# "), ("table", "robaudit: robust")):
        out = robaudit("attack", ROBUST, *QUICK, "--format", format, "-q").out
        assert out.startswith(heading)
        row = next(line for line in out.splitlines() if "Robust accuracy, PGD-2" in line)
        assert shown in row
        assert "\x1b" not in out


def test_json_wins_over_format():
    ran = robaudit("attack", ROBUST, *QUICK, "--json", "--format", "csv", "-q")
    assert json.loads(ran.out)["schema_version"] == 1


def test_a_new_report_replaces_the_earlier_one(place):
    for n in (8, 9):
        assert robaudit("attack", ROBUST, "--n", n, "--steps", 1, "--out", "out").code == 0
    assert read_report(place / "out").data.n == 9
    assert entries(place / "out") == FILES
    assert sorted(path.name for path in place.iterdir() if "pycache" not in path.name) == [
        "net.py", "out",
    ]  # fmt: skip


# Several checkpoints


def test_several_checkpoints_have_a_folder_each_and_an_array(place, valid):
    (place / "mine").mkdir()
    (place / "mine" / "robust.pt").write_bytes((SAMPLES / "standard.pt").read_bytes())
    checkpoints = [ROBUST, SAMPLES / "standard.pt", place / "mine" / "robust.pt"]
    ran = robaudit("attack", *checkpoints, *QUICK, "--json", "-q", "--out", "out")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert [report["subject"]["source"] for report in found] == [str(c) for c in checkpoints]
    for report in found:
        valid(report)
    folders = sorted(path.name for path in (place / "out").iterdir())
    assert folders == ["index.html", "mine-robust.pt", "sample_checkpoints-robust.pt", "standard"]
    index = (place / "out" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'href="\./([^"]*)"', index) == [
        f"{name}/report.html"
        for name in ("sample_checkpoints-robust.pt", "standard", "mine-robust.pt")
    ]
    for name, at in (
        ("sample_checkpoints-robust.pt", 0), ("standard", 1), ("mine-robust.pt", 2),
    ):  # fmt: skip
        assert entries(place / "out" / name) == FILES
        assert json.loads((place / "out" / name / "report.json").read_text()) == found[at]
    # The same weights under another name give the same numbers.
    assert without_seconds(found[1])["measurements"] == without_seconds(found[2])["measurements"]
    assert found[0]["measurements"][0]["name"] == found[1]["measurements"][0]["name"]
    assert without_seconds(found[0])["measurements"] != without_seconds(found[1])["measurements"]


def test_one_bad_checkpoint_does_not_stop_the_others(place, five_classes, nameless):
    checkpoints = [five_classes, ROBUST, nameless, place / "none.pt"]
    ran = robaudit("attack", *checkpoints, *QUICK, "--json", "-q", "--out", "out")
    assert ran.code == 4
    assert [report["subject"]["source"] for report in json.loads(ran.out)] == [str(ROBUST)]
    assert [path.name for path in (place / "out").iterdir()] == ["robust"]
    messages = [line for line in ran.err.splitlines() if line.startswith("robaudit: ")]
    assert len(messages) == 3
    for path, said in zip((five_classes, nameless, place / "none.pt"), messages, strict=True):
        assert said.count(str(path)) == 1
    assert "5 outputs" in messages[0]


def test_where_no_checkpoint_can_be_audited_nothing_is_written(place, five_classes, nameless):
    before = entries(place)
    ran = robaudit("attack", five_classes, nameless, *QUICK, "-q", "--out", "out")
    assert (ran.code, ran.out) == (4, "")
    assert "5 outputs" in ran.err
    assert "mine.weight" in ran.err
    assert entries(place) == before


# Warnings and failures


def test_probabilities_in_place_of_logits_are_warned_of(linear):
    words = ("attack", linear, "--arch", "net.py:softmax", "--normalize", "none", *QUICK, "-q")
    ran = robaudit(*words, "--json")
    assert ran.code == 0
    report = json.loads(ran.out)
    doubts = [text for m in report["measurements"] for text in m["doubts"]]
    assert [text for text in [*report["warnings"], *doubts] if "probabilities" in text]
    assert "returns probabilities, not logits" in " ".join(robaudit(*words).out.split())


def test_logits_are_not(linear):
    words = ("attack", linear, "--arch", "net.py:linear", "--normalize", "none", *QUICK, "-q")
    assert json.loads(robaudit(*words, "--json").out)["warnings"] == []


def test_a_network_of_ones_own_without_normalize_is_warned_of(linear):
    """Two normalisations are left, which differ under attack: not audited unless as a guess."""
    words = ("attack", linear, "--arch", "net.py:linear", *QUICK, "-q", "--json")
    ran = robaudit(*words)
    assert (ran.code, ran.out) == (4, "")
    assert "--normalize none|bytes" in ran.err
    assert "linf 0.15" in ran.err
    guessed = json.loads(robaudit(*words, "--guess").out)
    assert guessed["subject"]["normalization_known"] == "assumed"


def test_a_failed_measurement_leaves_the_others_and_exits_with_3(place, linear, valid):
    """The network is sound on the data, and gives NaN as soon as a pixel is off it."""
    words = ("--arch", "net.py:fragile", "--normalize", "none", *QUICK, "-q", "--json")
    ran = robaudit("attack", linear, *words, "--out", "out")
    assert (ran.code, ran.err) == (3, "")
    data = json.loads(ran.out)
    valid(data)
    status = {m["name"]: m["status"] for m in data["measurements"]}
    assert status == {
        "accuracy.clean": "ok", "loss.clean": "ok", "accuracy.pgd": "failed",
        "loss.robust": "failed",
    }  # fmt: skip
    assert "not finite" in data["measurements"][2]["reason"]
    assert entries(place / "out") == [name for name in FILES if name != "gallery.npz"]


def test_a_single_example_can_be_audited(valid):
    """No standard error exists then; nothing else may be missing."""
    ran = robaudit("wci", ROBUST, "--n", 1, "--steps", 2, "--json", "-q")
    assert (ran.code, ran.err) == (0, "")
    data = json.loads(ran.out)
    valid(data)
    assert {m["status"] for m in data["measurements"]} == {"ok"}
    assert next(m for m in data["measurements"] if m["name"] == "wci")["standard_error"] is None


# Stderr


def test_quiet_says_nothing():
    assert robaudit("attack", ROBUST, *QUICK, "--quiet").err == ""


def test_no_progress_where_stderr_is_no_terminal():
    ran = robaudit("attack", ROBUST, *QUICK)
    assert ran.err == (
        f"robaudit: {ROBUST}: digits_resnet, identified by its keys and shapes; "
        "normalisation none, by the network's family\n"
    )


def test_progress_goes_to_stderr_alone(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    ran = robaudit("attack", ROBUST, *QUICK, "--json", stderr=Terminal())
    assert "PGD-2 on 8 test examples" in ran.err
    assert json.loads(ran.out)["data"]["n"] == 8
    quiet = robaudit("attack", ROBUST, *QUICK, "--json", "--quiet", stderr=Terminal())
    assert quiet.err == ""
