"""JUnit XML: the xunit2 schema, what servers count, and no foreign markup."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from support.gates import HOSTILE, decision, hostile, verdict

from robaudit.report.junit import to_junit

SCHEMA = Path(__file__).parent / "schemas" / "junit-10.xsd"


@pytest.mark.parametrize(
    "verdicts",
    [[], [verdict()], [verdict(), verdict("b.pt", []), verdict("c/at.pt")], [hostile()]],
    ids=["none", "one", "several", "hostile"],
)
def test_the_schema_holds(verdicts):
    xmlschema = pytest.importorskip("xmlschema")
    xmlschema.XMLSchema(SCHEMA).validate(ElementTree.fromstring(to_junit(verdicts)))


def test_the_schema_refuses_what_is_wrong():
    xmlschema = pytest.importorskip("xmlschema")
    schema = xmlschema.XMLSchema(SCHEMA)
    text = to_junit([verdict()])
    for right, wrong in ((" classname=", " file="), ("skipped", "ignored"), (' tests="5"', "")):
        assert right in text
        assert not schema.is_valid(ElementTree.fromstring(text.replace(right, wrong)))


def test_a_suite_is_a_checkpoint_and_a_case_a_rule():
    root = ElementTree.fromstring(to_junit([verdict("a/at.pt"), verdict("b/at.pt", [decision()])]))
    first, second = root
    assert [suite.get("name") for suite in root] == ["a/at.pt", "b/at.pt"]
    assert dict(root.items()) == {
        "name": "robaudit gate",
        "tests": "6",
        "failures": "1",
        "errors": "1",
    }
    counts = {key: first.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "1", "skipped": "2"}
    outcomes = {case.get("name"): case[0].tag for case in first.findall("testcase")}
    assert outcomes == {
        "accuracy.autoattack >= 0.4": "system-out",
        "accuracy.clean >= 0.99": "failure",
        "wci <= 70": "error",
        "accuracy.pgd drop <= 0.02": "skipped",
        "loss.robust <= 0.4": "skipped",
    }
    failure = first.find(".//failure")
    assert failure.get("message") == decision("fail").sentence
    assert failure.text.splitlines() == [
        "found: 0.900 [0.710, 0.960]",
        "examples: 70 of 600",
        "rule: ci/robaudit policy.toml, line 9",
    ]
    assert "reason: out of memory" in first.find(".//error").text
    # Servers tell cases apart by both names.
    cases = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(cases)) == 6
    assert second.find("testcase").get("classname") == "b/at digits"


def test_foreign_text_stays_text():
    text = to_junit([hostile()])
    assert not any(sign in text for sign in ("<script", "\x1b", "\x00", "\ufffe", "]]>"))
    suite = ElementTree.fromstring(text)[0]
    assert suite.get("name").startswith("<script>alert(1)</script>]]>|`x` @all")
    assert {"<script>", *"\n\t"} & {*suite.get("name")} == set()
    assert "\x1b" in HOSTILE
