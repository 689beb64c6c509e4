"""``robaudit corruptions``: every view, files, references, selections, refusals, gates."""

import csv
import json

import numpy as np
import pytest
from support.console import ROBUST, robaudit
from support.corrupted import write_arrays, write_images

from robaudit.datasets import CORRUPTIONS
from robaudit.report.compare import compare
from robaudit.report.compare_outcomes import read_audited

N = 40  # the first with every class among them
FEW = ("--corruption", "snow,fog", "--severity", "1,5")


@pytest.fixture(scope="module")
def digits_c(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("data") / "digits-c")


@pytest.fixture
def corruptions(place, digits_c):
    def of(*words, data=f"corruptions:{digits_c}", checkpoints=(ROBUST,), n=N):
        return robaudit("corruptions", *checkpoints, "--data", data, "--n", n, "-q", *words)

    return of


@pytest.fixture(scope="module")
def whole(tmp_path_factory, digits_c):
    """A report folder over the fifteen, with clean accuracy."""
    out = tmp_path_factory.mktemp("whole") / "out"
    words = ("--data", f"corruptions:{digits_c}", "--clean-data", "digits", "--n", N)
    ran = robaudit("corruptions", ROBUST, *words, "--out", out, "-q")
    assert ran.code == 0, ran.err
    return out, ran.out


def measurements(text):
    return {m["name"]: m for m in json.loads(text)["measurements"]}


def test_every_view_has_the_mean_the_table_and_the_picture(whole):
    out, screen = whole
    found = measurements((out / "report.json").read_text())
    accuracy = found["accuracy.corruptions"]
    assert found["accuracy.clean"]["status"] == "ok"
    assert accuracy["n"] == N
    said = f"{100 * accuracy['value']:.1f}"
    page = (out / "report.html").read_text()
    for view in (screen, (out / "report.md").read_text(), page):
        assert "Accuracy under corruptions" in view
        assert said in view
        assert "elastic" in view
        assert "lowest" in " ".join(view.split())
    assert 'id="corruptions"' in page
    assert "Accuracy under each corruption at each severity" in page
    assert (out / "corruptions.png").read_bytes().startswith(b"\x89PNG")
    assert "jpeg compression" in (out / "corruptions.svg").read_text()
    with (out / "corruptions.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert len(rows) == 75
    assert {row["corruption"] for row in rows} == set(CORRUPTIONS)
    accuracies = [float(row["accuracy"]) for row in rows]
    assert np.mean(accuracies) == pytest.approx(accuracy["value"])
    with np.load(out / "examples.npz") as arrays:
        assert arrays["test.accuracy.corruptions"].mean() == pytest.approx(accuracy["value"])
        assert arrays["test.corruptions.fog"].shape == (N, 5)


def test_without_clean_images_clean_accuracy_is_skipped_and_said_so(corruptions):
    ran = corruptions(*FEW, "--json")
    assert ran.code == 0, ran.err
    found = measurements(ran.out)
    assert found["accuracy.clean"]["status"] == "skipped"
    assert "clean ones are not at hand" in found["accuracy.clean"]["reason"]
    assert found["accuracy.corruptions"]["n"] == N


def test_a_part_is_named_as_such(corruptions):
    flat = " ".join(corruptions(*FEW).out.split())
    assert "Accuracy under corruptions: snow, fog; severity 1, 5" in flat


@pytest.mark.parametrize("kind", ["folder", "report.json", "corruptions.csv", "by hand"])
def test_a_model_relative_to_itself_has_an_mce_of_one(corruptions, place, whole, kind):
    out, _ = whole
    if kind == "by hand":
        errors = {}
        with (out / "corruptions.csv").open() as text:
            for row in csv.DictReader(text):
                errors.setdefault(row["corruption"], []).append(float(row["error"]))
        lines = [f"{name},{max(np.mean(one), 1e-9)}" for name, one in errors.items()]
        (place / "mine.csv").write_text("\n".join(["corruption,error", *lines]))
        file = place / "mine.csv"
    else:
        file = out if kind == "folder" else out / kind
    ran = corruptions("--reference", file, "--corruption", "zoom_blur,snow", "--json")
    found = measurements(ran.out)["corruptions.mce"]
    assert found["value"] == pytest.approx(1), ran.err
    assert found["settings"]["reference"] in ("robust", "corruptions", "mine")


BAD_REFERENCES = {
    "corruption,error\nfog,60": "line 2: the error 60 is no fraction",
    "corruption,error\nfog,nan": "line 2: the error nan is no fraction",
    "corruption,error\nfog,": "line 2: no error of a corruption",
    "corruption,severity,error\nfog,1,0.5": "fog has not all of the severities 1 to 5",
    "corruption,error\nfog,0.5\nfog,0.5": "line 3: fog is there twice",
    "corruption,error\nfog,0": "the error under fog is 0",
    "corruption,error": "has no errors in it",
    "name,value\nfog,0.5": "line 2: no error of a corruption",
}


@pytest.mark.parametrize("text", BAD_REFERENCES)
def test_a_bad_reference_is_named_with_its_line(corruptions, place, text):
    (place / "ref.csv").write_text(text)
    ran = corruptions("--reference", "ref.csv", *FEW)
    assert ran.code == 4
    assert BAD_REFERENCES[text] in ran.flat


def test_a_folder_that_is_not_whole_is_refused_before_anything_is_opened(corruptions, tmp_path):
    folder = write_arrays(tmp_path / "part", ("fog", "snow"))
    ran = corruptions(data=f"corruptions:{folder}", checkpoints=("nowhere.pt",))
    assert ran.code == 4
    assert "lacks 13 of 15 corruptions" in ran.flat
    assert "--corruption fog,snow" in ran.flat
    assert corruptions("--severity", "9").code == 2
    assert corruptions("--severity", "x").code == 2
    assert corruptions("--corruption", ",").code == 2


def test_a_network_of_fewer_classes_is_refused(corruptions, five_classes):
    ran = corruptions(*FEW, checkpoints=(five_classes,))
    assert ran.code == 4
    assert "5 outputs" in ran.flat


def test_image_files_give_what_arrays_do(corruptions, tmp_path):
    """Files are ordered by class; all of them are the same images as in the arrays."""
    folder = write_images(tmp_path / "files", ("snow", "fog"), n=N)
    of_files = corruptions(*FEW, "--json", data=f"corruptions:{folder}")
    assert of_files.code == 0, of_files.err
    rows = [
        measurements(ran.out)["accuracy.corruptions"]["details"]["corruptions"]
        for ran in (of_files, corruptions(*FEW, "--json"))
    ]
    assert [row["name"] for row in rows[0]] == ["snow", "fog"]
    for one, other in zip(*rows, strict=True):
        assert one["severities"] == other["severities"]
        assert one["accuracy"] == pytest.approx(other["accuracy"])
        assert (one["low"], one["high"]) == pytest.approx((other["low"], other["high"]))


def test_other_commands_take_corrupted_images_for_no_test_set(place, digits_c):
    ran = robaudit("attack", ROBUST, "--data", f"corruptions:{digits_c}", "--n", 8, "--eps", 0.1)
    assert ran.code == 2
    assert "only robaudit corruptions measures on" in ran.flat


def test_beside_attacks_and_in_a_gate_the_folder_is_found_in_data_dir(place, digits_c):
    options = ("--data", "digits", "--data-dir", digits_c.parent, "--n", 8, "--no-gap")
    ran = robaudit(
        *("audit", ROBUST, *options, "--preset", "quick", "--also", "corruptions"), "--json", "-q"
    )
    assert ran.code == 0, ran.err
    found = measurements(ran.out)
    assert found["accuracy.corruptions"]["value"] > 0.8
    assert found["accuracy.pgd"]["status"] == "ok"
    policy = place / "robaudit.toml"
    for rule, code in (("min = 0.7", 0), ("max = 0.5", 1)):
        policy.write_text(
            f'[gate]\ndata = "digits"\ndata_dir = "{digits_c.parent}"\nn = 40\n'
            f'[gate.metrics."accuracy.corruptions"]\n{rule}\n'
        )
        ran = robaudit("gate", ROBUST, "--policy", policy, "-q")
        assert ran.code == code, ran.out + ran.err
        assert "ccuracy under corruptions" in ran.out or "accuracy.corruptions" in ran.out


def test_a_policy_from_a_report_has_no_rule_on_a_part(corruptions, whole, place):
    out, _ = whole
    first = robaudit("gate", "--init", out)
    assert '[gate.metrics."accuracy.corruptions"]' in first.out
    assert "corruptions.mce" not in first.out
    corruptions(*FEW, "--clean-data", "digits", "--out", "part")
    assert "accuracy.corruptions" not in robaudit("gate", "--init", "part").out


def test_images_of_another_set_are_refused_before_a_preset_runs(place, digits_c):
    np.savez(place / "few.npz", x=np.zeros((9, 8, 8)), y=np.zeros(9, int))
    for data, said in (("few.npz", "they are not the same images"), ("digits", "no folder")):
        where = place if data == "digits" else digits_c
        options = ("--data", data, "--data-dir", where, "--eps", 0.1, "--also", "corruptions")
        ran = robaudit("audit", ROBUST, *options, "-q")
        assert ran.code == 4
        assert said in ran.flat


def test_two_models_are_paired_image_by_image(place, digits_c, whole):
    out, _ = whole
    words = ("--data", f"corruptions:{digits_c}", "--clean-data", "digits", "--n", N, "-q")
    other = ROBUST.with_name("standard.pt")
    assert robaudit("corruptions", other, *words, "--out", "other").code == 0
    found = compare(read_audited(out), read_audited(place / "other"))
    (row,) = (row for row in found.differences if row.name == "accuracy.corruptions")
    assert row.how == "paired"
    shares = []
    for folder in (out, place / "other"):
        with np.load(folder / "examples.npz") as arrays:
            shares.append(arrays["test.accuracy.corruptions"])
    apart = shares[1] - shares[0]
    assert row.value == pytest.approx(apart.mean())
    assert row.standard_error == pytest.approx(apart.std(ddof=1) / N**0.5)
