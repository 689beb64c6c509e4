"""SARIF: the standard's schema, where results point, and no foreign markup."""

import json
from pathlib import Path

import pytest
from jsonschema.validators import validator_for
from support.gates import decision, hostile, verdict

from robaudit.report.sarif import to_sarif

SCHEMA = json.loads((Path(__file__).parent / "schemas" / "sarif-2.1.0.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def validator():
    kind = validator_for(SCHEMA)
    return kind(SCHEMA, format_checker=kind.FORMAT_CHECKER)


@pytest.mark.parametrize(
    "verdicts",
    [[], [verdict()], [verdict(), verdict("b.pt", []), verdict("c.pt")], [hostile()]],
    ids=["none", "one", "several", "hostile"],
)
def test_the_schema_holds(verdicts, validator):
    validator.validate(json.loads(to_sarif(verdicts)))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ('"kind": "open"', '"kind": "inconclusive"'),
        ('"startLine": 9', '"startLine": 0'),
        ('"uri": "ci/', '"url": "ci/'),
        ('"level": "error"', '"level": "fatal"'),
    ],
)
def test_the_schema_refuses_what_is_wrong(right, wrong, validator):
    text = to_sarif([verdict()])
    assert right in text
    assert not validator.is_valid(json.loads(text.replace(right, wrong)))


def test_results_are_what_did_not_pass():
    run = json.loads(to_sarif([verdict()]))["runs"][0]
    found = {
        one["ruleId"]: (
            one["kind"],
            one["level"],
            one["locations"][0]["physicalLocation"]["region"]["startLine"],
        )
        for one in run["results"]
    }
    assert found == {
        "accuracy.clean/min": ("fail", "error", 9),
        "wci/max": ("open", "none", 11),
        "accuracy.pgd/max_drop": ("fail", "warning", 13),
        "loss.robust/max": ("open", "none", 1),
    }
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert all(rules[one["ruleIndex"]] == one["ruleId"] for one in run["results"])
    assert "accuracy.autoattack/min" in rules  # it was checked, and passed
    assert run["invocations"][0]["executionSuccessful"] is False  # wci was out of memory


def test_where_a_result_points():
    run = json.loads(to_sarif([verdict("runs/at.pt", [decision("fail")])]))["runs"][0]
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"] == {"uri": "ci/robaudit%20policy.toml"}
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "runs/at.pt"
    assert run["results"][0]["message"]["text"].startswith("at: 63 of 70")
    assert run["invocations"][0]["executionSuccessful"] is True


def test_a_path_is_no_more_absolute_than_it_was_given(tmp_path):
    assert "file:" not in to_sarif([verdict()])
    absolute = to_sarif([verdict(policy=str(tmp_path / "p.toml"))])
    assert (tmp_path / "p.toml").as_uri() in absolute


def test_an_alert_lives_on_over_commits():
    def fingerprint(**update):
        subject = verdict().subject.model_copy(update={"sha256": update.pop("sha256", "00" * 32)})
        run = json.loads(
            to_sarif([verdict(subject=subject, decisions=[decision("fail", **update)])])
        )
        return run["runs"][0]["results"][0]["partialFingerprints"]["robauditRule/v1"]

    first = fingerprint()
    assert fingerprint(sha256="11" * 32, value=0.1, line=40) == first
    assert first not in {fingerprint(suite="svhn"), fingerprint(rule="max_drop")}


def test_foreign_text_stays_text():
    text = to_sarif([hostile()])
    assert "\\u001b" not in text
    assert "\\u0000" not in text
    message = json.loads(text)["runs"][0]["results"][0]["message"]["text"]
    assert "{{0}}" in message  # no placeholder
    assert "](" not in message  # no link
    assert "\n" not in message
