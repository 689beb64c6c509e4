"""``robaudit flatness``: radii, protocols, clean loss, and several checkpoints."""

import csv
import json

import pytest
from support.console import ROBUST, SAMPLES, robaudit

QUICK = ("--n", 24, "--steps", 2, "--worst-restarts", 1, "--device", "cpu", "-q")
EPOCHS = [SAMPLES / "epochs" / f"epoch_{epoch:03d}.pt" for epoch in (30, 1, 240)]


def measured(*words):
    ran = robaudit("flatness", ROBUST, *QUICK, "--json", *words)
    assert ran.code == 0, ran.err
    return {m["name"]: m for m in json.loads(ran.out)["measurements"]}


def test_several_radii_are_measured_as_each_alone():
    sweep = measured("--xi", "0.5,0.1", "--worst-xi", "0.001,0.02", "--perturbations", 2)
    alone = measured("--xi", "0.1", "--worst-xi", "0.001", "--perturbations", 2)
    for name, radii in (("flatness.average", [0.1, 0.5]), ("flatness.worst", [0.001, 0.02])):
        rows = sweep[name]["details"]["sweep"]
        assert [row["xi"] for row in rows] == radii
        assert rows[0]["value"] == alone[name]["value"]
        assert rows[0]["standard_error"] == alone[name]["standard_error"]
        assert rows[-1]["value"] == sweep[name]["value"]
        ends = {end: sweep[name]["interval"][end] for end in ("low", "high")}
        assert {end: rows[-1][end] for end in ends} == ends
        assert sweep[name]["details"]["xi"] == radii[-1]
        assert "sweep" not in alone[name]["details"]
    worst = [row["value"] for row in sweep["flatness.worst"]["details"]["sweep"]]
    assert worst == sorted(worst)


def test_radii_are_shown_in_a_table():
    ran = robaudit("flatness", ROBUST, *QUICK, "--xi", "0.1,0.25,0.5", "--perturbations", 2)
    table = ran.out.partition("Average flatness, over radii")[2]
    rows = [line.split() for line in table.splitlines() if line.split()[-1:] == ["2"]]
    assert [row[0] for row in rows] == ["0.1", "0.25", "0.5"]


def test_the_clean_loss_stands_beside_the_robust_one():
    found = measured("--clean", "--perturbations", 2)
    names = [name for name in found if name.startswith("flatness")]
    assert names == [
        "flatness.average", "flatness.clean_average", "flatness.worst", "flatness.clean_worst",
    ]  # fmt: skip
    clean = found["loss.clean"]["value"]
    for name in ("flatness.clean_average", "flatness.clean_worst"):
        assert found[name]["details"]["reference"] == pytest.approx(clean, rel=1e-6)


def test_parts_are_by_the_clean_prediction():
    found = measured("--perturbations", 2)
    parts = found["flatness.average"]["details"]["parts"]
    right = round(24 * found["accuracy.clean"]["value"])
    assert sum(part["n"] for part in parts.values()) == 24
    assert parts["correct"]["n"] == right


def test_the_published_protocol_sets_restarts_and_steps():
    found = measured("--protocol", "stutz2021", "--perturbations", 2)
    assert found["loss.robust"]["settings"]["restarts"] == 10
    for name in ("flatness.average", "flatness.worst"):
        assert found[name]["settings"]["protocol"] == "stutz2021"
        assert found[name]["settings"]["pgd"]["restarts"] == 1
        assert found[name]["settings"]["pgd"]["step_over_eps"] == pytest.approx(0.007 * 255 / 8)
        assert found[name]["details"]["reference"] == pytest.approx(
            found["loss.robust"]["value"], rel=1e-6
        )


def test_how_many_draws_were_made_is_said():
    found = measured("--tolerance", "1000")["flatness.average"]
    assert found["details"]["perturbations"] == len(found["details"]["perturbed"]) == 5
    assert found["warnings"] == []
    table = robaudit("flatness", ROBUST, *QUICK, "--tolerance", "1000").out
    assert "Average flatness, 5 draws" in table
    short = measured("--tolerance", "1e-9")["flatness.average"]
    assert short["details"]["perturbations"] == 10
    assert "examples alone" in short["warnings"][0]


def test_the_ball_is_drawn_from_where_asked():
    sphere = measured("--perturbations", 3)["flatness.average"]
    ball = measured("--perturbations", 3, "--ball")["flatness.average"]
    assert ball["settings"]["ball"] == "ball"
    assert ball["value"] != sphere["value"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--xi", "0.1,x"), ["--xi", "0.1,0.25,0.5"]),
        (("--xi", ","), ["--xi"]),
        (("--xi", "0.5,0"), ["xi of average", "0"]),
        (("--worst-xi", "0.001,-1"), ["xi of worst-case", "-1"]),
        (("--tolerance", "0"), ["tolerance", "0"]),
        (("--tolerance", "nan"), ["tolerance", "nan"]),
        (("--protocol", "stutz2021", "--restarts", "2"), ["stutz2021", "2 times"]),
    ],
)
def test_what_cannot_be_meant(words, names):
    ran = robaudit("flatness", ROBUST, *QUICK, *words)
    assert (ran.code, ran.out) == (2, "")
    for name in names:
        assert name in ran.err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flatness") / "out"
    ran = robaudit("flatness", *EPOCHS, *QUICK, "--perturbations", 2, "--out", folder)
    assert (ran.code, ran.err) == (0, "")
    return folder, ran.out


def test_several_checkpoints_are_shown_in_the_order_of_their_epochs(run):
    _, out = run
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows[:3]] == ["1", "30", "240"]
    assert "Pearson" in out
    assert "not a random sample" in out


def test_their_folder_holds_numbers_and_pictures(run):
    folder, _ = run
    names = {path.name for path in folder.iterdir() if path.is_file()}
    assert names - {"index.html"} == {
        "flatness.csv", "flatness.svg", "flatness.png", "flatness-loss.svg", "flatness-loss.png",
    }  # fmt: skip
    with (folder / "flatness.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["place"] for row in rows] == ["1", "30", "240"]
    for row in rows:
        name = f"epoch_{int(row['place']):03d}"
        report = json.loads((folder / name / "report.json").read_text())
        own = {m["name"]: m for m in report["measurements"]}
        for key, at in (("loss_robust", "loss.robust"), ("flatness_worst", "flatness.worst")):
            assert float(row[key]) == own[at]["value"]
            assert float(row[f"{key}_standard_error"]) == own[at]["standard_error"]
    picture = (folder / "flatness-loss.svg").read_text()
    for words in ("average flatness (nats)", "robust loss (nats)", "epoch 1", "240"):
        assert words in picture
    course = (folder / "flatness.svg").read_text()
    assert "worst-case" in course
    assert "eigenvalue" not in course  # it was not measured


def test_the_table_and_the_pictures_come_again_from_the_folder(run, tmp_path):
    folder, out = run
    again = robaudit("report", folder, "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    assert again.out.strip() == out.strip()
    made = {path.name for path in (tmp_path / "again").iterdir()}
    assert made == {
        "flatness.csv", "flatness.svg", "flatness.png", "flatness-loss.svg", "flatness-loss.png",
    }  # fmt: skip
    for name in made:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name
    (folder / "flatness.csv").rename(folder / "moved.csv")
    assert robaudit("report", folder).code == 0  # compared, as any reports are
    (folder / "moved.csv").rename(folder / "flatness.csv")


def test_a_checkpoint_that_is_lost_leaves_a_gap(tmp_path):
    lost = tmp_path / "epoch_050.pt"
    lost.write_bytes(b"nothing")
    ran = robaudit(
        "flatness", EPOCHS[1], lost, EPOCHS[2], *QUICK, "--perturbations", 2,
        "--out", tmp_path / "out",
    )  # fmt: skip
    assert ran.code == 4
    row = next(line for line in ran.out.splitlines() if line.split()[:1] == ["50"])
    assert row.split()[1:] == ["-"] * 3
    assert "a gap in the curve: epoch_050" in ran.out
    assert (tmp_path / "out" / "flatness.png").stat().st_size > 1000
    assert robaudit("report", tmp_path / "out").out.strip() == ran.out.strip()
