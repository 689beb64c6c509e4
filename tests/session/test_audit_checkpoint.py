"""One call opens, audits and writes; it means what the command line means and prints nothing."""

import json

import pytest
from support.console import ROBUST, robaudit

import robaudit as ra
from robaudit.display import Display
from robaudit.errors import UsageError

FEW = {"data": "digits", "n": 8, "gap": False}


def test_it_is_what_the_command_line_gives(tmp_path, capsys):
    report = ra.audit_checkpoint(
        str(ROBUST), preset="quick", out=tmp_path / "here", eps="1/8", seed=3, **FEW
    )
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")
    ran = robaudit(
        "audit", ROBUST, "--preset", "quick", "--data", "digits", "--n", 8, "--no-gap",
        "--eps", "1/8", "--seed", 3, "--json", "--quiet",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    there = json.loads(ran.out)
    assert there["threat"] == {"norm": "linf", "eps": 0.125}
    assert [(m["name"], m["value"]) for m in there["measurements"]] == [
        (m.name, m.value) for m in report.measurements
    ]
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert {"report.json", "report.html", "examples.npz"} <= names


def test_a_display_is_told():
    notes = []

    class Told(Display):
        def note(self, message, advice=None):
            notes.append(message)

    ra.audit_checkpoint(str(ROBUST), preset="quick", display=Told(), **FEW)
    assert any(str(ROBUST) in note for note in notes)


@pytest.mark.parametrize(
    ("settings", "field", "said"),
    [
        ({"nrom": "l2"}, "nrom", "nrom: .*did you mean 'norm'"),
        ({"n": 0}, "n", "n: .*greater than or equal to 1"),
        ({"batch_size": "0"}, "batch_size", "batch_size: 0 is neither auto nor a positive"),
        ({"split": "val"}, "split", "split: .*'test' or 'train'"),
    ],
)
def test_what_is_refused_is_named_by_its_field(settings, field, said):
    with pytest.raises(UsageError, match=said) as refused:
        ra.audit_checkpoint(str(ROBUST), **settings)
    assert refused.value.field == field


@pytest.mark.parametrize("eps", ["wide", 0, -1, "1/0"])
def test_a_radius_is_a_positive_number(eps):
    with pytest.raises(UsageError, match="eps"):
        ra.audit_checkpoint(str(ROBUST), eps=eps)


def test_the_command_line_names_the_option():
    ran = robaudit("attack", ROBUST, "--batch-size", "0")
    assert ran.code == 2
    assert ran.err.startswith("robaudit: --batch-size: 0 is neither auto nor a positive number")
    ran = robaudit("attack", ROBUST, ROBUST, "--sha256", "ab")
    assert ran.err.startswith("robaudit: --sha256 is one file's, but there are several checkpoints")
