"""The summary and the comment: within the sites' limits, what failed first, nothing executed."""

import re

from support.gates import decision, hostile, verdict

from robaudit.report.gate_markdown import MARKER, gate_markdown


def cells(row):
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]


def rows(text):
    tables = [cells(line) for line in text.splitlines() if line.startswith("| ")]
    return [row for row in tables if row[0] != "Result"]


def test_it_says_what_was_decided():
    text = gate_markdown([verdict()])
    lines = text.splitlines()
    assert lines[:2] == [MARKER, "## robaudit gate: failed"]
    assert "### at: failed (1 of 5 rules passed)" in lines
    assert [row[0] for row in rows(text)] == [
        "**fail**",
        "**fail** (warning)",
        "**inconclusive**",
        "**inconclusive** (warning)",
        "pass",
    ]
    assert rows(text)[0][1:4] == [
        "`accuracy.clean >= 0.99` digits",
        "0.900 [0.710, 0.960]",
        "70 of 600",
    ]
    assert "(out of memory)" in text
    assert "- policy: `ci/robaudit policy.toml`, sha256 ab12ab12ab12" in lines
    assert "Truncated" not in text


def test_the_worst_comes_first():
    passed = verdict("good.pt", [decision()])
    text = gate_markdown([passed, verdict("bad.pt")])
    assert text.index("### bad: failed") < text.index("### good: passed")
    assert "## robaudit gate: passed" in gate_markdown([passed])
    undecided = verdict("u.pt", [decision("inconclusive")])
    assert "## robaudit gate: inconclusive" in gate_markdown([passed, undecided])


def test_a_long_one_is_cut_and_says_so():
    many = [decision(metric=f"accuracy.{i}", sentence="ü" * 200) for i in range(900)]
    several = [verdict(f"{i}.pt", many) for i in range(3)]
    text = gate_markdown([*several, verdict("bad.pt", [*many, decision("fail", metric="last")])])
    assert len(text.encode()) <= 60_000
    assert text.endswith("more rules are not shown here.\n")
    shown = rows(text)
    left = int(re.search(r"Truncated:\*\* ([\d,]+) more", text)[1].replace(",", ""))
    assert len(shown) + left == 3601
    assert shown[0][:2] == ["**fail**", "`last >= 0.4` digits"]


def test_a_thousand_checkpoints_too():
    text = gate_markdown([verdict(f"{i}.pt", [decision()]) for i in range(1000)])
    assert len(text.encode()) <= 60_000
    assert f"**Truncated:** {1000 - len(rows(text))} more rules" in text


def test_foreign_text_stays_text():
    text = gate_markdown([hostile()])
    assert text.count(MARKER) == text.count("<!-- robaudit") == 1
    assert {len(row) for row in rows(text)} == {5}
    outside_code = re.sub(r"`[^`\n]*`", "", text)
    tags = set(re.findall(r"<[^>]*>", outside_code))
    assert tags == {MARKER, "<!-- -->", "<details>", "<summary>", "</summary>", "</details>"}
    assert "\x1b" not in text
    assert not re.search(r"@\w|://", outside_code)  # nobody is mentioned, nothing is linked
    assert not re.search(r"(?<!\\)!?(?<!\\)\[[^\]\n]*(?<!\\)\]\(", outside_code)
