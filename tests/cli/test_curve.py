"""`robaudit wci` on several checkpoints: the curve on the screen, in the folder, and again."""

import csv
import json
import re

import pytest
import torch
from support.console import ROBUST, SAMPLES, robaudit
from torch import nn

from robaudit.data import load_examples

EPOCHS = [SAMPLES / "epochs" / f"epoch_{epoch:03d}.pt" for epoch in (12, 1, 240)]


@pytest.fixture(scope="module")
def curve(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curve") / "out"
    ran = robaudit("wci", *EPOCHS, "--n", 32, "--out", folder, "--device", "cpu", "-q")
    assert (ran.code, ran.err) == (0, "")
    return folder, ran.out


def epochs_of(text):
    return [int(found) for found in re.findall(r"^ +(\d+) ", text.partition("\n\n")[0], re.M)]


def test_the_curve_is_printed_in_the_order_of_the_epochs(curve):
    _, out = curve
    assert epochs_of(out) == [1, 12, 240]
    for heading in ("WCI", "Robust loss", "Loss gap", "Error gap", "sum ||W_k||²", "sum Tr(H_k)"):
        assert heading in out
    assert "By the epoch in its name" in out


def test_the_folder_holds_the_curve_and_every_report(curve):
    folder, _ = curve
    names = sorted(path.name for path in folder.iterdir())
    pictures = ["curve.csv", "curve.png", "curve.svg"]
    assert names == [*pictures, "epoch_001", "epoch_012", "epoch_240", "index.html"]
    with (folder / "curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["place"] for row in rows] == ["1", "12", "240"]
    for row in rows:
        name = f"epoch_{int(row['place']):03d}"
        report = json.loads((folder / name / "report.json").read_text())
        own = {(m["name"], m["split"]): m for m in report["measurements"]}
        for key, at in (
            ("wci_test", ("wci", "test")),
            ("wci_train", ("wci", "train")),
            ("gap_error", ("gap.error", "gap")),
            ("trace_train", ("trace.total", "train")),
        ):
            assert float(row[key]) == own[at]["value"]
            assert float(row[f"{key}_standard_error"]) == own[at]["standard_error"]
        layers = own["wci", "test"]["details"]["layers"]
        squares = sum(layer["frobenius"] ** 2 for layer in layers)
        assert float(row["weights_squared"]) == pytest.approx(squares, rel=1e-12)


def test_the_folder_is_shown_again_as_the_same_curve(curve):
    folder, out = curve
    again = robaudit("report", folder)
    assert again.code == 0
    note = "By the epoch in its name"  # the folders' order is that of the epochs already
    assert [line for line in out.splitlines() if note not in line] == again.out.splitlines()
    assert "WCI, test" in robaudit("report", folder, "--format", "md").out


def test_json_stays_an_array_in_the_order_given():
    ran = robaudit("wci", *EPOCHS[:2], "--n", 4, "--steps", 1, "--no-gap", "--json", "-q")
    assert ran.code == 0
    assert [r["subject"]["source"] for r in json.loads(ran.out)] == [str(e) for e in EPOCHS[:2]]


def test_a_checkpoint_that_cannot_be_audited_leaves_a_gap(place, nameless):
    lost = nameless.rename(place / "epoch_005.pt")
    words = ("--n", 4, "--steps", 1, "--no-gap", "-q", "--out", "out")
    ran = robaudit("wci", EPOCHS[1], lost, EPOCHS[0], *words)
    assert ran.code == 4
    assert epochs_of(ran.out) == [1, 5, 12]
    assert "Could not be audited, a gap in the curve: epoch_005." in ran.out
    with (place / "out" / "curve.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["wci_test"]) for row in rows] == [True, False, True]


def test_the_epoch_that_a_file_records_places_it(place):
    for name, source, epoch in (("best", EPOCHS[0], 12), ("last", EPOCHS[2], 240)):
        state = torch.load(source, weights_only=True)
        torch.save({"epoch": epoch, "state_dict": state}, place / f"{name}.pt")
    words = ("--n", 4, "--steps", 1, "--no-gap", "-q")
    ran = robaudit("wci", "last.pt", "best.pt", *words, "--out", "out")
    assert ran.code == 0
    assert epochs_of(ran.out) == [12, 240]
    assert re.search(r"^ +12 +best ", ran.out, re.M)
    assert "By the epoch in its file" in ran.out
    assert epochs_of(robaudit("report", "out").out) == [12, 240]


def test_other_commands_keep_the_comparison(place):
    ran = robaudit("attack", *EPOCHS[:2], "--n", 4, "--steps", 1, "-q", "--out", "out")
    assert "best of its column" in ran.out
    assert not (place / "out" / "curve.csv").exists()


def test_one_checkpoint_is_no_curve(place):
    words = ("--n", 4, "--steps", 1, "--no-gap", "-q", "--out", "out")
    assert robaudit("wci", ROBUST, *words).out.startswith("robaudit: robust")
    assert not (place / "out" / "curve.csv").exists()


SMOOTH = """
from torch import nn


def smooth():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.SiLU(), nn.Linear(8, 10))
"""


def test_all_points_of_a_curve_are_of_one_quantity(place):
    """In one epoch the Hessian's traces are clearly positive, in the other they are not."""
    (place / "smooth.py").write_text(SMOOTH)
    digits = load_examples("digits", split="train", n=500)
    for epoch, bias in ((1, 0.0), (2, 60.0)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.SiLU(), nn.Linear(8, 10))
        nn.init.constant_(network[1].bias, bias)
        trained = [network[1].weight, network[3].weight, network[3].bias]
        optimizer = torch.optim.Adam(trained, 0.02)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(digits.x), digits.y).backward()
            optimizer.step()
        torch.save(network.state_dict(), place / f"epoch_{epoch}.pt")
    words = ("--arch", "smooth.py:smooth", "--normalize", "none", "--n", 48, "--steps", 1)
    words += ("--probes", 8, "--no-gap")

    def quantities(*names):
        ran = robaudit("wci", *names, *words, "--json", "-q", "--out", "out" + "+".join(names))
        assert ran.code == 0, ran.err
        found = json.loads(ran.out)
        reports = found if isinstance(found, list) else [found]
        return [
            [(m["details"]["quantity"], m["value"]) for m in report["measurements"]
             if m["name"] == "wci"]
            for report in reports
        ]  # fmt: skip

    (((alone, _),),), (((fallen, there),),) = quantities("epoch_1.pt"), quantities("epoch_2.pt")
    assert (alone, fallen) == ("hessian", "gauss-newton")
    both = quantities("epoch_1.pt", "epoch_2.pt")
    assert {quantity for report in both for quantity, _ in report} == {"gauss-newton"}
    assert both[1][0][1] == there
    written = json.loads(
        (place / "outepoch_1.pt+epoch_2.pt" / "epoch_1" / "report.json").read_text()
    )
    wci = next(m for m in written["measurements"] if m["name"] == "wci")
    assert wci["details"]["quantity"] == "gauss-newton"
