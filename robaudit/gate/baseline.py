"""What an accuracy may not fall below: an earlier report's, on the very same examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import robaudit
from robaudit.errors import DataError, UsageError
from robaudit.gate.policy import Rule
from robaudit.measures import find
from robaudit.schema import Data, Measurement, Provenance, Report, Threat, edges_apart

# An attack's settings as an audit's measurement of it would record them.
Described = Callable[[str], dict[str, Any]]


@dataclass(frozen=True)
class Baseline:
    """A report, and its per-example outcomes by ``split.name`` where they lie beside it."""

    path: str
    report: Report
    outcomes: Mapping[str, NDArray[Any]] | None


@dataclass(frozen=True)
class Before:
    """How the baseline did on the population.

    Attributes:
        chain: the attacks that both sides go through.
        successes: examples that withstood them.
        outcomes: which; ``None`` where only their number is known.
        doubts: of the baseline's own number.
    """

    chain: tuple[str, ...]
    successes: int
    outcomes: NDArray[Any] | None
    doubts: tuple[str, ...] = ()


def before(
    rule: Rule,
    baselines: Sequence[Baseline],
    data: Data,
    threat: Threat,
    index: NDArray[Any],
    label: NDArray[Any],
    described: Described,
    policy: str,
    here: Provenance | None = None,
) -> Before:
    """The baseline's side of a ``max_drop`` rule.

    Both sides go through the same attacks: the metric's own, and of the cheaper ones that may show
    an example broken, those that the baseline recorded with the same settings.

    Args:
        index, label: ``(n,)`` of the population.
        policy: the policy's path, for messages.
        here: of the gate's own run.

    Raises:
        UsageError: no baseline, or none of these examples, threat model and attack; says what
            either side has.
        DataError: outcomes that contradict their report.
    """
    where = policy if rule.line is None else f"{policy}:{rule.line}"
    advice = (
        f"robaudit gate MAIN.pt --policy {policy} --write-baseline baseline audits what to compare "
        "with; then give --baseline baseline."
    )
    if not baselines:
        raise UsageError(f"{where}: {rule.metric} has a max_drop, and there is no baseline", advice)
    refused = []
    for baseline in baselines:
        reason = _unlike(baseline, data, threat, here)
        if reason is None:
            return _before(rule, baseline, index, label, described)
        refused.append(f"{baseline.path}: {reason}")
    raise UsageError(
        f"{where}: no baseline to compare {rule.metric} with; {'; '.join(refused)}", advice
    )


def _unlike(baseline: Baseline, data: Data, threat: Threat, here: Provenance | None) -> str | None:
    theirs = baseline.report
    if theirs.threat != threat:
        said = theirs.threat
        its = "none" if said is None else f"{said.norm} {said.eps:.6g}"
        return f"its threat is {its}, the policy's {threat.norm} {threat.eps:.6g}"
    if (theirs.data.n, theirs.data.sha256) != (data.n, data.sha256):
        ours = f"{data.name} {data.split}, {data.n} examples, sha256 {data.sha256[:12]}"
        return (
            f"its data are {theirs.data.name} {theirs.data.split}, {theirs.data.n} examples, "
            f"sha256 {theirs.data.sha256[:12]}, the policy's {ours}"
        )
    if theirs.robaudit != robaudit.__version__:
        return (
            f"it was made by robaudit {theirs.robaudit}, this is {robaudit.__version__}: attacks "
            "may differ"
        )
    return None if here is None else edges_apart(theirs.provenance, here)


def _before(
    rule: Rule,
    baseline: Baseline,
    index: NDArray[Any],
    label: NDArray[Any],
    described: Described,
) -> Before:
    report, split = baseline.report, baseline.report.data.split
    chain = find(rule.metric).stages
    own = chain[-1]
    measured = _measured(report, own)
    if measured is None:
        raise UsageError(f"{baseline.path} has no {rule.metric}", "Audit it with that attack.")
    if own != "clean" and measured.settings != described(own):
        advice = "Audit the baseline with the preset of the policy."
        if measured.settings.get("engine") == "pyautoattack":
            advice = (
                "Its verdicts depend on batches, a gate's may not: audit the baseline with "
                "robaudit audit --preset standard, or robaudit attack --attack "
                "pgd,fast,autoattack --engine native."
            )
        if measured.settings.get("reused"):
            advice = (
                "It also counts what other attacks broke: audit the baseline with robaudit attack "
                "--attack union."
            )
        raise UsageError(
            f"{baseline.path} measured {rule.metric} with {_listed(measured.settings)}, "
            f"the gate does with {_listed(described(own))}",
            advice,
        )
    assert measured.value is not None
    n = report.data.n
    if baseline.outcomes is None:
        chain = ("clean", own) if own != "clean" else chain
        return Before(chain, round(measured.value * n), None, tuple(measured.doubts))
    shared = tuple(
        stage
        for stage in chain
        if stage in ("clean", own)
        or ((found := _measured(report, stage)) is not None and found.settings == described(stage))
    )
    outcomes = np.ones(n, dtype=bool)
    for stage in shared:
        found = _measured(report, stage)
        rows = baseline.outcomes.get(f"{split}.accuracy.{stage}")
        if rows is None or rows.shape != (n,) or found is None or found.value is None:
            raise DataError(f"{baseline.path}: examples.npz lacks {split}.accuracy.{stage}")
        if round(found.value * n) != int(rows.astype(bool).sum()):
            raise DataError(
                f"{baseline.path}: examples.npz and report disagree on accuracy.{stage}: "
                f"{int(rows.astype(bool).sum())} and {round(found.value * n)} of {n}"
            )
        outcomes &= rows.astype(bool)
    for name, wanted in (("index", index), ("label", label)):
        if not np.array_equal(baseline.outcomes.get(f"{split}.{name}", np.zeros(0)), wanted):
            raise DataError(f"{baseline.path}: examples.npz is of other examples than its report")
    return Before(shared, int(outcomes.sum()), outcomes, tuple(measured.doubts))


def _measured(report: Report, stage: str) -> Measurement | None:
    found = report.get(f"accuracy.{stage}")
    return found if found is not None and found.status == "ok" and found.value is not None else None


def _listed(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items()) or "no settings"
