"""Compare two audits of the same examples: every measurement, and which examples changed.

Differences are the second minus the first. Accuracies and losses are paired example by example;
for everything else the standard errors are added in quadrature, as for independent estimates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from robaudit.errors import DataError, UsageError
from robaudit.measures import find
from robaudit.notebook import html
from robaudit.report.compare_outcomes import Audited, ExampleOutcomes, outcomes_of
from robaudit.report.facts import setting_text, short_threat
from robaudit.report.naming import names_of
from robaudit.report.text import plain
from robaudit.report.words import label, ordered
from robaudit.schema import Data, Interval, Measurement, Report, edges_apart
from robaudit.statistics import (
    clustered_mean,
    clustered_paired,
    degrees_of,
    from_standard_error,
    mean,
    paired,
)

_LEVEL = 0.95

How = Literal["paired", "not paired", "not comparable"]


@dataclass(frozen=True)
class Difference:
    """One measurement in both reports.

    Attributes:
        value: second minus first; ``None`` where ``reason`` says why they cannot be compared.
        interval: of the difference, at 95 %.
        p_value: of McNemar's exact test; ``holm`` is the same, corrected for all such tests of the
            comparison by Holm's method.
        only_first, only_second: places in the data set of the examples that one of them alone got
            right; ``None`` where that is not known.
    """

    name: str
    split: str
    label: str
    unit: str
    first: Measurement | None
    second: Measurement | None
    how: How
    reason: str | None = None
    value: float | None = None
    standard_error: float | None = None
    interval: Interval | None = None
    n: int | None = None
    p_value: float | None = None
    holm: float | None = None
    only_first: tuple[int, ...] | None = None
    only_second: tuple[int, ...] | None = None

    @property
    def result(self) -> Literal["better", "worse"] | None:
        """Whether the second is better or worse; ``None`` where that is open.

        Its interval leaves zero out, the test of an accuracy agrees at 5 %, neither value is in
        doubt, and the measure has a better way.
        """
        wanted = find(self.name).better
        doubted = any(m is not None and m.doubts for m in (self.first, self.second))
        if self.value is None or self.interval is None or wanted is None or doubted:
            return None
        if self.interval.low <= 0 <= self.interval.high or (self.holm or 0) >= 1 - _LEVEL:
            return None
        return "better" if (self.value > 0) == (wanted == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """All measurements of two reports; ``notes`` says what limits the comparison."""

    first: Report
    second: Report
    names: tuple[str, str]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    _repr_html_ = html


def compare(first: Audited, second: Audited) -> Comparison:
    """Compare two audits of the same examples.

    McNemar's exact test and Newcombe's interval of the difference for accuracies, the mean of the
    differences and its standard error for losses.

    Raises:
        UsageError: the audited examples are not the same.
        DataError: the per-example outcomes do not belong to their report, or disagree with the
            other's on which examples they are of.
    """
    one, other = first.report, second.report
    if one.data.sha256 != other.data.sha256:
        raise UsageError(
            f"the reports are of different examples: {_data(one.data)} and {_data(other.data)}",
            "Audit both with the same --data, --split, --n and --sample.",
        )
    names = names_of([one.subject, other.subject])
    rows = [_difference(first, second, *pair, names) for pair in _pairs(one, other)]
    return Comparison(
        one, other, (names[0], names[1]), tuple(_holm(rows)), tuple(_notes(first, second, rows))
    )


def _data(data: Data) -> str:
    return f"{plain(data.name)} {plain(data.split)}, n = {data.n}, sha256 {plain(data.sha256)[:12]}"


def _pairs(one: Report, other: Report) -> list[tuple[Measurement | None, Measurement | None]]:
    """Measurements of the same name and split, in reading order; ``None`` where one lacks it."""
    firsts = {(m.name, m.split): m for m in ordered(one)}
    seconds = {(m.name, m.split): m for m in ordered(other)}
    both = one.model_copy(
        update={
            "measurements": [*firsts.values(), *(m for k, m in seconds.items() if k not in firsts)]
        }
    )
    keys = [(m.name, m.split) for m in ordered(both)]
    return [(firsts.get(key), seconds.get(key)) for key in keys]


def _difference(
    first: Audited,
    second: Audited,
    one: Measurement | None,
    other: Measurement | None,
    names: Sequence[str],
) -> Difference:
    known = one or other
    assert known is not None
    row = Difference(
        known.name, known.split, label(known), known.unit, one, other, "not comparable"
    )
    if one is None or other is None:
        return replace(row, reason=f"not measured for {names[0] if one is None else names[1]}")
    reason = _obstacle(first.report, second.report, one, other, names)
    if reason is not None or one.value is None or other.value is None:
        return replace(row, reason=reason)
    row = replace(row, n=one.n, value=other.value - one.value)
    a, b = outcomes_of(first, one), outcomes_of(second, other)
    if a is None or b is None:
        error = (
            float(np.hypot(one.standard_error, other.standard_error))
            if one.standard_error is not None and other.standard_error is not None
            else None
        )
        # Where both are means of few draws, the smaller degrees of freedom: the interval is
        # rather too wide than too narrow.
        degrees = [d for m in (one, other) if (d := degrees_of(m.interval)) is not None]
        interval = (
            None
            if error is None
            else from_standard_error(row.value or 0.0, error, min(degrees, default=None), _LEVEL)
        )
        return replace(row, how="not paired", standard_error=error, interval=interval)
    if not np.array_equal(a.index, b.index):
        raise DataError(
            f"the two examples.npz list other examples for {plain(one.name)}",
            "Though the reports say they are the same; audit both again.",
        )
    return _paired_outcomes(row, a, b) if a.values.dtype == bool else _paired_means(row, a, b)


def _obstacle(
    first: Report, second: Report, one: Measurement, other: Measurement, names: Sequence[str]
) -> str | None:
    """Why two measurements cannot be subtracted; ``None`` if they can."""
    for m, name in zip((one, other), names, strict=True):
        if m.status != "ok":
            return f"{m.status} for {name}: {plain(m.reason)}"
    if not find(one.name).any_threat:
        if first.threat != second.threat:
            a, b = (short_threat(r.threat) for r in (first, second))
            return f"other threat models: {a} and {b}"
        apart = edges_apart(first.provenance, second.provenance)
        if apart is not None:
            return plain(apart)
    if one.split != first.data.split:
        a, b = (r.train_data.sha256 if r.train_data else "" for r in (first, second))
        if a != b:
            return "other training examples"
    if one.n != other.n:
        return f"other numbers of examples: {one.n} and {other.n}"
    if one.unit != other.unit:
        return f"other units: {plain(one.unit)} and {plain(other.unit)}"
    unlike = [
        f"{plain(key)} {_given(key, one.settings)} and {_given(key, other.settings)}"
        for key in {**one.settings, **other.settings}
        if one.settings.get(key) != other.settings.get(key)
    ]
    return f"other settings: {', '.join(unlike)}" if unlike else None


def _given(key: str, settings: Mapping[str, Any]) -> str:
    return plain(setting_text(key, settings[key]) if key in settings else "not given")


def _paired_outcomes(row: Difference, a: ExampleOutcomes, b: ExampleOutcomes) -> Difference:
    one, other = a.values & ~b.values, b.values & ~a.values
    both = int((a.values & b.values).sum())
    counts = (both, int(one.sum()), int(other.sum()))
    found = (
        paired(*counts, len(a.values) - sum(counts), level=_LEVEL)
        if a.groups is None
        else clustered_paired(a.values, b.values, a.groups, _LEVEL)
    )
    return replace(
        row,
        how="paired",
        value=found.difference,
        interval=found.interval,
        p_value=found.p_value,
        only_first=tuple(a.index[one].tolist()),
        only_second=tuple(a.index[other].tolist()),
    )


def _paired_means(row: Difference, a: ExampleOutcomes, b: ExampleOutcomes) -> Difference:
    apart = b.values.astype(np.float64) - a.values.astype(np.float64)
    if not np.isfinite(apart).all():
        return replace(row, value=None, reason="outcomes that are not finite")
    found = mean(apart) if a.groups is None else clustered_mean(apart, a.groups)
    error = found.standard_error
    degrees = None if a.groups is None else len(np.unique(a.groups)) - 1
    interval = None if error is None else from_standard_error(found.value, error, degrees, _LEVEL)
    return replace(row, how="paired", value=found.value, standard_error=error, interval=interval)


def _holm(rows: Iterable[Difference]) -> list[Difference]:
    """Each test's p-value corrected for their number (Holm, Scandinavian J. Statistics 6, 1979)."""
    rows = list(rows)
    tested = sorted((row.p_value, at) for at, row in enumerate(rows) if row.p_value is not None)
    least = 0.0
    for rank, (p_value, at) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * p_value))
        rows[at] = replace(rows[at], holm=least)
    return rows


def _notes(first: Audited, second: Audited, rows: Sequence[Difference]) -> list[str]:
    one, other = first.report, second.report
    notes = []
    if one.subject.sha256 is not None and one.subject.sha256 == other.subject.sha256:
        notes.append("Both reports are of the same file.")
    if one.subject.architecture != other.subject.architecture:
        a, b = plain(one.subject.architecture), plain(other.subject.architecture)
        notes.append(
            f"The architectures differ ({a} and {b}): WCI, traces and eigenvalues depend on them."
        )
    kept: list[tuple[str, object, object]] = [
        ("seeds", one.provenance.seed, other.provenance.seed),
        ("precisions", one.provenance.precision, other.provenance.precision),
        ("versions of robaudit", one.robaudit, other.robaudit),
    ]
    notes += [
        f"The {what} differ: {plain(mine)} and {plain(others)}."
        for what, mine, others in kept
        if mine != others
    ]
    lacking = [
        name
        for name, audited in zip(("first", "second"), (first, second), strict=True)
        if not audited.outcomes
    ]
    if lacking:
        notes.append(
            f"No examples.npz beside the {' and the '.join(lacking)} report: nothing is paired."
        )
    tests = sum(row.p_value is not None for row in rows)
    if any(f"{row.split}.group" in first.outcomes for row in rows if row.how == "paired"):
        notes.append(
            "Some examples show one image: intervals and p-values of paired differences count that."
        )
    if tests:
        notes.append(
            "Accuracies: Newcombe's interval of the paired difference, and McNemar's exact test"
            + (f", p corrected for {tests} tests by Holm's method." if tests > 1 else ".")
        )
    if any(row.how == "not paired" and row.standard_error is not None for row in rows):
        notes.append(
            "Not paired: standard errors combined as if independent, which on the same examples "
            "is usually too wide."
        )
    return notes
