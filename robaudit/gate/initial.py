"""A first policy, from a report."""

from __future__ import annotations

import json
import math

from robaudit.audit.plan import PRESETS
from robaudit.audit.probes import Pgd
from robaudit.checkpoints.files.display import shown
from robaudit.datasets import CORRUPTED
from robaudit.errors import UsageError
from robaudit.measures import Measure, ruled
from robaudit.schema import Interval, Measurement, Report, Subject

_HEAD = """\
# A policy for robaudit gate, from a report on {source}.
#
# Each threshold is the end of the report's interval at which a checkpoint as good as that one
# passes: where higher is better the interval's lower end, elsewhere its upper end. Change it to
# what you would not ship beyond; a threshold near the truth takes many examples to decide. To
# compare with the report example by example, add max_drop = 0.02 to an accuracy, and give
# --baseline.

[gate]
{network}data = {data}
split = {split}
n = {n}                 # the first n examples; leave it out for all
{threat}alpha = 0.05            # the most often a decision may be wrong
# doubts = "allow"      # let numbers decide that may overstate robustness; else exit code 3
preset = {preset}       # whose settings PGD, losses, curvature and flatness have
"""

_BY_LIBRARY = """\
# The report has the reference library's AutoAttack, whose verdicts depend on batches. The gate runs
# robaudit's own code of the same attacks, which may judge single examples otherwise.
"""


def initial_policy(report: Report) -> str:
    """A policy as TOML that the report's own checkpoint should pass, with comments.

    Rules on measures other than accuracies only warn.

    Raises:
        UsageError: the report has no measurement that a rule can be on.
    """
    preset = _preset(report)
    rules = [
        _rule(measure, found, found.interval)
        for name, measure in ruled().items()
        if (found := report.get(name)) is not None
        and found.interval is not None
        and _same(found, preset)
    ]
    if not rules:
        raise UsageError(
            "the report has no measurement with an interval that a rule can be on",
            "Begin with one of robaudit audit, or of robaudit attack --attack pgd,fast.",
        )
    head = _HEAD.format(
        source=shown(report.subject.source),
        network=_network(report.subject),
        data=json.dumps(_clean(report.data.name)),
        split=json.dumps(report.data.split),
        n=report.data.n,
        threat=""
        if report.threat is None
        else f"norm = {json.dumps(report.threat.norm)}\neps = {report.threat.eps!r}\n"
        + _union(report),
        preset=json.dumps(preset),
    )
    return "\n".join([head, *rules])


def _clean(name: str) -> str:
    """A gate looks at clean images, and measures corrupted ones beside them."""
    return CORRUPTED[name].clean if name in CORRUPTED else name


def _union(report: Report) -> str:
    """The key that gives the gate the report's union, where that was not the usual one."""
    found = report.get("accuracy.union")
    rows = found.details.get("union") if found is not None else None
    if found is None or not isinstance(rows, list) or found.settings.get("union") == "usual":
        return ""
    listed = ",".join(f"{row['norm']}:{row['eps']!r}" for row in rows)
    return f"union = {json.dumps(listed)}\n"


def _network(subject: Subject) -> str:
    """Keys that make the gate open the checkpoint as the report's, if options or a guess did so."""
    lines = []
    if subject.identified_by == "--arch":
        lines.append(f"arch = {json.dumps(subject.architecture)}")
    if subject.normalized_by == "--normalize":
        lines.append(f"normalize = {json.dumps(subject.normalization)}")
    if subject.assumed:
        lines.append(
            "guess = true            # the data did not tell what it is; better to say it above: "
            "arch, normalize"
        )
    return "".join(f"{line}\n" for line in lines)


def _rule(measure: Measure, found: Measurement, interval: Interval) -> str:
    notes = "".join(f"# In doubt: {shown(text)}\n" for text in found.doubts)
    if found.settings.get("engine") == "pyautoattack":
        notes += _BY_LIBRARY
    said = f"# {found.value:.5g} on {found.n} examples, {interval.low:.5g} to {interval.high:.5g}"
    table = f'{notes}[gate.metrics."{measure.name}"]'
    if measure.stages:
        return f"{table}  {said}\nmin = {math.floor(1000 * interval.low) / 1000:g}\n"
    higher = measure.better == "higher"
    end, rounded = (interval.low, math.floor) if higher else (interval.high, math.ceil)
    place = 10.0 ** (math.floor(math.log10(abs(end) or 1.0)) - 3)
    limit = round(rounded(end / place) * place, 12)
    kind = "min" if higher else "max"
    return f'{table}  {said}\n{kind} = {limit:g}\nseverity = "warning"\n'


def _preset(report: Report) -> str:
    """The preset with the PGD of the report, else ``standard``."""
    for name in PRESETS:
        found = report.get("accuracy.pgd")
        if found is not None and _same(found, name):
            return name
    return "standard"


def _same(found: Measurement, preset: str) -> bool:
    """Whether the gate would measure what the report did.

    The same PGD, the same version of AutoAttack whoever runs it, and no part of a whole.
    """
    if "part" in found.settings or found.settings.get("version", "standard") != "standard":
        return False
    if found.name != "accuracy.pgd":
        return True
    pgd = PRESETS[preset].get(Pgd)
    assert pgd is not None
    wanted = {"steps": pgd.steps, "restarts": pgd.restarts, "loss": pgd.loss}
    return wanted.items() <= found.settings.items()
