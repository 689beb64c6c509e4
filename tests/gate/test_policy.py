"""A policy is taken as meant, or refused with the line and the nearest name."""

import json
import re

import jsonschema
import pytest
from support.console import ROBUST

from robaudit.audit.probes import giving, named
from robaudit.errors import UsageError
from robaudit.gate.policy import policy_schema, read_policy
from robaudit.measures import ruled

WHOLE = """
[gate]
data = "digits"
eps = "8/255"
alpha = 0.1

[gate.metrics."accuracy.autoattack"]
min = 0.40
max_drop = 0.02
min_n = 128
[gate.metrics.wci]
max = 300
severity = "warning"
alpha = 0.01

[gate.suites.svhn]
data = "svhn"
eps = 0.03
max_n = 1000
metrics."accuracy.clean".min = 0.9
"""


@pytest.fixture
def read(tmp_path):
    def of(text):
        path = tmp_path / "p.toml"
        path.write_text(text)
        return read_policy(path)

    return of


def test_the_tables_of_other_commands_are_passed_over(read):
    policy = read("[options]\nn = 5\n[attack]\nsteps = 3\n" + WHOLE)
    assert [suite.n for suite in policy.suites] == [suite.n for suite in read(WHOLE).suites]
    with pytest.raises(UsageError, match="unknown key 'option'"):
        read("[option]\nn = 5\n" + WHOLE)


def test_a_policy_says_how_checkpoints_are_opened_and_where_data_are(read):
    policy = read(
        '[gate]\ndata = "cifar10"\ndata_dir = "data"\nweights = "ema"\nforce_eps = true\neps = 2\n'
        '[gate.metrics."accuracy.clean"]\nmin = 0.4'
    )
    (suite,) = policy.suites
    assert policy.checkpoint.weights == "ema"
    assert (str(suite.data_dir), suite.eps, suite.force_eps) == ("data", 2.0, True)


def test_suites_inherit_and_rules_know_their_lines(read):
    first, second = read(WHOLE).suites
    assert (first.name, first.data, first.eps, first.norm) == ("default", "digits", 8 / 255, "linf")
    assert [(r.metric, r.kind, r.threshold, r.alpha, r.line) for r in first.rules] == [
        ("accuracy.autoattack", "min", 0.4, 0.1, 8),
        ("accuracy.autoattack", "max_drop", 0.02, 0.1, 9),
        ("wci", "max", 300, 0.01, 12),
    ]
    assert [(r.min_n, r.severity) for r in first.rules] == [
        (128, "error"), (128, "error"), (1, "warning"),
    ]  # fmt: skip
    assert (second.name, second.data, second.eps, second.max_n) == ("svhn", "svhn", 0.03, 1000)
    assert (second.rules[0].alpha, second.rules[0].line) == (0.1, 20)


def test_doubts_decide_nothing_unless_a_suite_or_the_whole_policy_allows_them(read):
    rule = 'metrics."accuracy.clean".min = 0.9\n'
    own = f'[gate.suites.b]\ndoubts = "allow"\n{rule}[gate.suites.c]\n{rule}'
    for whole, expected in (("", ["allow", "inconclusive"]), ('doubts = "allow"', ["allow"] * 2)):
        suites = read(f'[gate]\ndata = "digits"\n{whole}\n{own}').suites
        assert [suite.doubts for suite in suites] == expected


HEAD = '[gate]\ndata = "digits"\n'
CLEAN = '[gate.metrics."accuracy.clean"]\n'


@pytest.mark.parametrize(
    ("text", "line", "names"),
    [
        ("", None, ["gate"]),
        (HEAD, None, ["no rule", "--init"]),
        ("nonsense", None, ["not TOML"]),
        (HEAD + '[gate.metrics."accuracy.autoatack"]\nmin = 0.4', 3,
         ["'accuracy.autoatack'", "did you mean 'accuracy.autoattack'?"]),
        (HEAD + CLEAN + "mim = 0.4", 4, ["'mim'", "did you mean 'min'?"]),
        (HEAD + "ebs = 0.1\n" + CLEAN + "min = 0.4", 3, ["'ebs'", "did you mean 'eps'?"]),
        (HEAD + CLEAN + "min = 40", 4, ["between 0 and 1", "40", "0.4 for 40 %"]),
        (HEAD + CLEAN + "min = 0.9\nmax = 0.8", 5, ["at least 0.9", "at most 0.8"]),
        (HEAD + CLEAN + "min = nan", 4, ["finite"]),
        (HEAD + CLEAN + "min = true", 4, ["number"]),
        (HEAD + CLEAN + 'min = "0.4"', 4, ["number"]),
        (HEAD + CLEAN + "max_drop = 1.5", 4, ["less than 1"]),
        (HEAD + CLEAN, 3, ["no min, max or max_drop"]),
        (HEAD + CLEAN + "min = 0.4\nalpha = 0", 5, ["greater than 0"]),
        (HEAD + CLEAN + "min = 0.4\nalpha = 0.5", 5, ["less than or equal to 0.3"]),
        (HEAD + CLEAN + 'min = 0.4\nseverity = "eror"', 5, ["'error' or 'warning'"]),
        (HEAD + 'doubts = "allowed"\n' + CLEAN + "min = 0.4", 3, ["'inconclusive' or 'allow'"]),
        (HEAD + "max_n = 50\n" + CLEAN + "min = 0.4\nmin_n = 60", 6, ["min_n = 60", "50"]),
        (HEAD + "n = 0\n" + CLEAN + "min = 0.4", 3, ["greater than or equal to 1"]),
        (HEAD + "eps = -1\n" + CLEAN + "min = 0.4", 3, ["positive"]),
        (HEAD + 'eps = "8/0"\n' + CLEAN + "min = 0.4", 3, ["8/0"]),
        (HEAD + "[gate.metrics.wci]\nmax_drop = 0.1", 4, ["accuracies", "wci"]),
        (HEAD + "[gate.metrics.wci]\nmax = 9\nmin_n = 3", 5, ["accuracies", "wci"]),
        (HEAD + '[gate.metrics."wci.bound"]\nmax = 9', 3, ["no error bar"]),
        (HEAD + "[gate.suites.other]\neps = 0.1", 3, ["'other'", "no rule"]),
        ("[gate]\n" + CLEAN + "min = 0.4", 1, ["no data"]),
        (HEAD + CLEAN + "min = 0.4\n[gate.suites.default]\n" + CLEAN.replace(
            "metrics", "suites.default.metrics") + "min = 0.5", 5, ["'default'"]),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_with_its_line(text, line, names, read):
    with pytest.raises(UsageError) as refused:
        read(text)
    said = f"{refused.value.message} {refused.value.advice}"
    assert ("p.toml:" if line is None else f"p.toml:{line}: ") in said or line is None
    for name in names:
        assert name in said


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_policy(tmp_path / "none.toml")


def test_the_schema_takes_what_is_read_and_refuses_what_is_refused():
    import tomllib

    schema = json.loads(policy_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(tomllib.loads(WHOLE))
    for wrong in (WHOLE.replace("alpha = 0.1", "alpa = 0.1"), WHOLE.replace(".wci", ".wcj"), "a=1"):
        assert not validator.is_valid(tomllib.loads(wrong))


def test_every_metric_is_one_an_audit_makes():
    """Its stages decide examples one by one, and some probe gives the measure."""
    from robaudit.audit.probe import PerExample

    for name, metric in ruled().items():
        assert issubclass(giving(name), PerExample) or not metric.stages
        assert all(issubclass(named(stage), PerExample) for stage in metric.stages)


def test_the_policies_in_the_manual_are_policies(read):
    page = (ROBUST.parents[1] / "docs/how-to/gate.md").read_text()
    blocks = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert read(block).suites
