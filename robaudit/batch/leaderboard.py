"""The run's models by robust accuracy: with intervals, shared places, and published figures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from pathlib import Path

from robaudit import measures
from robaudit.batch.directory import REPORT, ListedJob, State
from robaudit.batch.view import names_by_source
from robaudit.errors import UsageError
from robaudit.measures import Measure
from robaudit.report.naming import marked
from robaudit.report.text import plain
from robaudit.report.words import attack, doubts, label
from robaudit.schema import Measurement, Report
from robaudit.types import parse_eps

# Images that RobustBench's figures were measured on.
_CORRUPTIONS = "accuracy.corruptions"
_BESIDE = ("Accuracy", "Curvature", "Flatness")
_PUBLISHED_ON = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}


@dataclass(frozen=True)
class Published:
    """RobustBench's figure for a network, and how the measured accuracy differs from it.

    Attributes:
        accuracy: under AutoAttack or corruptions, as a fraction of ``n`` images.
        difference: the measured accuracy minus ``accuracy``; ``None`` where it is of another
            attack.
        noise: standard error of ``difference`` because an audit measures a sample of the ``n``
            images.
        external: the accuracy under a stronger attack, where RobustBench knows one.
        unreliable: RobustBench marks AutoAttack's accuracy as unreliable.
    """

    accuracy: float
    n: int
    difference: float | None
    noise: float | None
    external: float | None = None
    unreliable: bool = False


@dataclass(frozen=True)
class RankedModel:
    """A model in a leaderboard.

    Attributes:
        robust: the accuracy that it is ranked by, where it has a value and an interval.
        places: the best and the worst place that the intervals allow, counted from one; ``None``
            for a model without the ranked accuracy.
        reason: why it has no report.
        page: the page of its report.
    """

    name: str
    source: str
    report: Report | None
    robust: Measurement | None
    places: tuple[int, int] | None
    published: Published | None
    reason: str = ""
    page: Path | None = None

    @property
    def accuracy(self) -> float | None:
        """The value of ``robust``, a fraction."""
        return None if self.robust is None else self.robust.value

    @property
    def place(self) -> str:
        """``3``, or ``2-5`` where intervals overlap."""
        if self.places is None:
            return ""
        best, worst = self.places
        return str(best) if best == worst else f"{best}-{worst}"

    @property
    def remarks(self) -> list[str]:
        """Why its numbers may be wrong, or why it has none."""
        if self.report is None:
            return [self.reason]
        accuracies = [m for m in self.report.measurements if m.name.startswith("accuracy.")]
        found = [*doubts(self.report), *self.report.warnings]
        found += [f"{attack(m)}: {text}" for m in accuracies for text in m.warnings]
        lost = [
            f"{attack(m) if m in accuracies else label(m)} not measured: {m.reason}"
            for m in self.report.failed
        ]
        return [plain(text) for text in dict.fromkeys([*found, *lost])]


@dataclass(frozen=True)
class Leaderboard:
    """Models measured on the same examples within the same threat model, the most robust first.

    Attributes:
        threat: norm and radius.
        attack: of the accuracy that it is ranked by, in words; several where they differ.
        beside: other measures that are shown: accuracies of no attack, such as certified accuracy,
            curvature and flatness.
    """

    title: str
    threat: str
    attack: str
    models: list[RankedModel]
    beside: list[Measure] = field(default_factory=list)


def leaderboards(state: State) -> list[Leaderboard]:
    """One for each data set and threat model of the run; a model listed twice is shown twice.

    Raises:
        UsageError: no job is finished.
        DataError: a report cannot be read.
    """
    if not state.done:
        raise UsageError("no model of this run is finished", "Look with: robaudit batch status.")
    names = names_by_source(state.rows)
    groups: dict[tuple[object, ...], list[ListedJob]] = {}
    for row in state.rows:
        groups.setdefault(row.job.suite, []).append(row)
    return [_leaderboard(rows, state, names) for rows in groups.values()]


def _leaderboard(rows: list[ListedJob], state: State, names: dict[str, str]) -> Leaderboard:
    reports = {row.key: report for row in rows if (report := state.report(row.key))}
    ranked_by = _ranked_by(list(reports.values()))
    robust = {key: found for key, one in reports.items() if (found := _ranked(one, ranked_by))}
    places = _places(robust)
    models = [
        RankedModel(
            marked(names[row.job.source], row.key in reports and reports[row.key].subject.assumed),
            row.job.source,
            reports.get(row.key),
            robust.get(row.key),
            places.get(row.key),
            _published(row, robust.get(row.key)),
            _reason(row, state),
            _page(row, state),
        )
        for row in rows
    ]
    models.sort(key=lambda one: (one.robust is None, -(one.accuracy or 0.0), one.name))
    job = rows[0].job
    n = f"{next(iter(reports.values())).data.n} examples" if reports else f"n {job.n}"
    data = job.data.rpartition("/")[2]
    title = ", ".join(
        filter(None, (f"{plain(data)} {job.split}", n, job.threat, job.measured_in_short))
    )
    words = " or ".join(sorted({_words(one) for one in robust.values()})) or ranked_by
    return Leaderboard(title, job.threat, words, models, _beside(list(reports.values()), ranked_by))


def _words(ranked: Measurement) -> str:
    return attack(ranked) if measures.find(ranked.name).attack else label(ranked)


def _beside(reports: list[Report], ranked_by: str) -> list[Measure]:
    """What else some model was measured by: accuracies that are no attack's, WCI, flatness."""
    rows = [row for row in measures.known() if row.section in _BESIDE and row.heading]
    return [
        row
        for row in rows
        if not row.attack
        and row.name not in ("accuracy.clean", ranked_by)
        and any(value_of(report, row.name) is not None for report in reports)
    ]


def _ranked_by(reports: list[Report]) -> str:
    """The strongest attack that all were measured with, else that any was; else corruptions.

    An attack is the stronger, the more attacks its examples have to withstand before it.
    """
    attacks = [row for row in measures.known() if row.attack and row.stages]
    attacks.sort(key=lambda row: (len(row.stages), row.passes), reverse=True)
    for enough in (all, any):
        for row in attacks:
            if reports and enough(value_of(report, row.name) is not None for report in reports):
                return row.name
    if any(value_of(report, _CORRUPTIONS) is not None for report in reports):
        return _CORRUPTIONS
    return attacks[-1].name


def _ranked(report: Report, name: str) -> Measurement | None:
    found = report.get(name)
    return found if found and found.value is not None and found.interval else None


def _places(found: dict[str, Measurement]) -> dict[str, tuple[int, int]]:
    """The places that each may have: behind those whose intervals lie wholly above its own."""
    intervals = {key: one.interval for key, one in found.items() if one.interval}
    lows = sorted(one.low for one in intervals.values())
    highs = sorted(one.high for one in intervals.values())
    return {
        key: (
            1 + len(lows) - bisect_right(lows, one.high),
            len(highs) - bisect_left(highs, one.low),
        )
        for key, one in intervals.items()
    }


def _published(row: ListedJob, ours: Measurement | None) -> Published | None:
    """Only where the network was published for this threat model and this data."""
    if row.job.norm is None or row.job.eps is None:
        return _published_corruptions(row, ours)
    scheme, _, name = row.job.source.partition(":")
    robust = row.published.get("robust_acc")
    eps = row.published.get("eps")
    if scheme != "robustbench" or not isinstance(robust, float) or not isinstance(eps, str):
        return None
    dataset, threat, _ = name.split("/")
    n = _PUBLISHED_ON.get(dataset, 0)
    same = threat.lower() == row.job.norm and abs(parse_eps(eps) - row.job.eps) < 1e-6
    if not same or not n or row.job.data != dataset:
        return None
    accuracy = row.published.get("autoattack_acc", robust)
    external = None if accuracy == robust else robust
    unreliable = bool(row.published.get("unreliable", False))
    if ours is None or ours.name != "accuracy.autoattack" or ours.value is None or not ours.n:
        return Published(accuracy, n, None, None, external, unreliable)
    left_out = max(0.0, (n - ours.n) / (n - 1))
    noise = (accuracy * (1 - accuracy) / ours.n * left_out) ** 0.5
    return Published(accuracy, n, ours.value - accuracy, noise, external, unreliable)


def _published_corruptions(row: ListedJob, ours: Measurement | None) -> Published | None:
    dataset = row.job.source.partition(":")[2].partition("/")[0]
    accuracy, n = row.published.get("corruptions_acc"), _PUBLISHED_ON.get(dataset, 0)
    if not isinstance(accuracy, float) or not n or row.job.data not in (dataset, f"{dataset}-c"):
        return None
    if ours is None or ours.name != _CORRUPTIONS or ours.value is None or not ours.n:
        return Published(accuracy, n, None, None)
    left_out = max(0.0, (n - ours.n) / (n - 1))
    noise = None if ours.standard_error is None else ours.standard_error * left_out**0.5
    return Published(accuracy, n, ours.value - accuracy, noise)


def value_of(report: Report, name: str) -> float | None:
    """A measurement's value, where the report has one."""
    found = report.get(name)
    return None if found is None else found.value


def _page(row: ListedJob, state: State) -> Path | None:
    page = state.folders[row.key] / REPORT / "report.html"
    return page if row.key in state.done and page.is_file() else None


def _reason(row: ListedJob, state: State) -> str:
    if row.key in state.failed:
        return f"failed: {plain(state.failed[row.key])}"
    return "" if row.key in state.done else "not finished"
