"""The run's models by robust accuracy: with intervals, shared ranks, and published figures."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

from robaudit.batch.directory import ListedJob, State
from robaudit.batch.results import Number, Result
from robaudit.batch.view import names_of
from robaudit.errors import UsageError
from robaudit.report.naming import marked
from robaudit.report.text import plain
from robaudit.types import parse_eps, radius

# The strongest first: a table is ranked by the first that all of its models have.
ATTACKS = ("accuracy.autoattack", "accuracy.fast", "accuracy.cw", "accuracy.pgd")
# Images that RobustBench's figures were measured on.
_PUBLISHED_ON = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
_NORMS = {"Linf": "linf", "L2": "l2"}


@dataclass(frozen=True)
class Published:
    """RobustBench's figure for a network, and how ours differs from it.

    Attributes:
        accuracy: AutoAttack's, as a fraction, on ``n`` images.
        external: a stronger attack's, where one was found.
        unreliable: RobustBench says so of AutoAttack's.
        difference: ours less theirs; ``None`` where ours is of another attack.
        noise: standard error of the difference that fewer images alone give: those of an audit
            are part of theirs.
    """

    accuracy: float
    n: int
    difference: float | None
    noise: float | None
    external: float | None = None
    unreliable: bool = False


@dataclass(frozen=True)
class Entry:
    """A model in a table.

    Attributes:
        places: the best and the worst that the intervals leave open, counted from one; ``None``
            for a model without the ranked accuracy.
        reason: why it has no result.
    """

    name: str
    source: str
    result: Result | None
    robust: Number | None
    places: tuple[int, int] | None
    published: Published | None
    reason: str = ""

    @property
    def place(self) -> str:
        """``3``, or ``2-5`` where intervals overlap."""
        if self.places is None:
            return ""
        best, worst = self.places
        return str(best) if best == worst else f"{best}-{worst}"

    @property
    def remarks(self) -> list[str]:
        """Why its numbers cannot be relied on, or that it has none."""
        if self.result is None:
            return [self.reason]
        lost = [f"{number.label} not measured: {number.reason}" for number in self.result.failed]
        return [plain(text) for text in (*self.result.warnings, *lost)]


@dataclass(frozen=True)
class Table:
    """Models measured on the same examples within the same threat model, the most robust first.

    Attributes:
        threat: norm and radius.
        ranked_by: the measurement, and its attack in words.
    """

    title: str
    threat: str
    ranked_by: str
    attack: str
    entries: list[Entry]


def tables(state: State) -> list[Table]:
    """One table for each data set and threat model of the run; listed twice is shown twice.

    Raises:
        UsageError: nothing is finished.
    """
    if not state.results:
        raise UsageError("no model of this run is finished", "Look with: robaudit batch status.")
    names = names_of(state.rows)
    groups: dict[tuple[object, ...], list[ListedJob]] = {}
    for row in state.rows:
        groups.setdefault(row.job.suite, []).append(row)
    return [_table(rows, state, names) for rows in groups.values()]


def _table(rows: list[ListedJob], state: State, names: dict[str, str]) -> Table:
    finished = [row for row in rows if row.key in state.results]
    results = [state.results[row.key] for row in finished]
    ranked_by = next(
        (name for name in ATTACKS if results and all(_has(r, name) for r in results)),
        next((name for name in ATTACKS if any(_has(r, name) for r in results)), ATTACKS[-1]),
    )
    robust = {row.key: state.results[row.key].get(ranked_by) for row in finished}
    measured = {key: one for key, one in robust.items() if one is not None and _whole(one)}
    places = _places(measured)
    entries = [
        Entry(
            _name(names[row.job.source], state.results.get(row.key)),
            row.job.source,
            state.results.get(row.key),
            measured.get(row.key),
            places.get(row.key),
            _published(row, measured.get(row.key)),
            _reason(row, state),
        )
        for row in rows
    ]
    entries.sort(key=lambda one: (one.robust is None, -_value(one.robust), one.name))
    job = rows[0].job
    n = f"{results[0].n} examples" if results else f"n {job.n}"
    data = job.data.rpartition("/")[2]
    threat = f"{job.norm} {radius(job.eps)}"
    title = f"{plain(data)} {job.split}, {n}, {threat}, {job.preset}"
    attack = next((one.label for one in measured.values()), ranked_by)
    return Table(title, threat, ranked_by, attack, entries)


def _name(name: str, result: Result | None) -> str:
    return marked(name, result is not None and result.assumed)


def _places(found: dict[str, Number]) -> dict[str, tuple[int, int]]:
    """The places each may have: behind those whose intervals lie wholly above its own."""
    lows = sorted(one.low or 0.0 for one in found.values())
    highs = sorted(one.high or 0.0 for one in found.values())
    return {
        key: (
            1 + len(lows) - bisect_right(lows, one.high or 0.0),
            len(highs) - bisect_left(highs, one.low or 0.0),
        )
        for key, one in found.items()
    }


def _published(row: ListedJob, ours: Number | None) -> Published | None:
    """Only where the network was published for this threat model and this data."""
    scheme, _, name = row.job.source.partition(":")
    robust = row.published.get("robust_acc")
    eps = row.published.get("eps")
    if scheme != "robustbench" or not isinstance(robust, float) or not isinstance(eps, str):
        return None
    dataset, threat, _ = name.split("/")
    n = _PUBLISHED_ON.get(dataset, 0)
    same = _NORMS.get(threat) == row.job.norm and abs(parse_eps(eps) - row.job.eps) < 1e-6
    if not same or not n or row.job.data != dataset:
        return None
    said = row.published.get("autoattack_acc", robust)
    external = None if said == robust else robust
    unreliable = bool(row.published.get("unreliable", False))
    if ours is None or ours.name != "accuracy.autoattack" or ours.value is None or not ours.n:
        return Published(said, n, None, None, external, unreliable)
    left_out = max(0.0, (n - ours.n) / (n - 1))
    noise = (said * (1 - said) / ours.n * left_out) ** 0.5
    return Published(said, n, ours.value - said, noise, external, unreliable)


def _has(result: Result, name: str) -> bool:
    return result.value(name) is not None


def _whole(number: Number) -> bool:
    return None not in (number.value, number.low, number.high)


def _value(number: Number | None) -> float:
    return 0.0 if number is None or number.value is None else number.value


def _reason(row: ListedJob, state: State) -> str:
    if row.key in state.failed:
        return f"failed: {plain(state.failed[row.key])}"
    return "" if row.key in state.results else "not finished"
