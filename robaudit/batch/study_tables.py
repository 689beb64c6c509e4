"""The study as tables: a short one for a terminal, all coefficients, and all numbers for CSV."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.batch.study import ERROR, Pair, Study
from robaudit.report.table import MISSING, Cell, Column, Table, names, text
from robaudit.report.text import plain
from robaudit.statistics.correlations import FEWEST_GROUPS, Coefficient

_FEW_GROUPS = 10
# Names of attributes of a Correlation, and headings.
_COEFFICIENTS = {
    "spearman": "Spearman",
    "partial": "partial",
    "granulated": "Psi",
    "pearson": "Pearson",
    "kendall": "Kendall",
}


def study_tables(found: Sequence[Study]) -> list[Table]:
    """A table for each study, a row for each pair, as wide as a terminal."""
    return [_short(study) for study in found]


def study_document(found: Sequence[Study]) -> list[Table]:
    """The same, and below each a table of all coefficients with their intervals."""
    return [table for study in found for table in (_short(study), _details(study))]


def study_csv(found: Sequence[Study]) -> Table:
    """All studies in one table for CSV, a row for each pair, unrounded."""
    ends = ("", "_low", "_high", "_least_without_one", "_most_without_one")
    headings = ["data_and_threat", "measure", "outcome", "models", "groups"]
    headings += [f"{name}{end}" for name in _COEFFICIENTS for end in ends]
    headings += ["partial_given", "p_value", "p_value_holm", "influential_model"]
    headings += ["shared_examples", "shared_noise_at_most"]
    rows = []
    for study in found:
        for pair in study.pairs:
            outcome = f"robust error, {study.attack}" if pair.outcome == ERROR else pair.outcome
            row: list[object] = [study.title, pair.measure, outcome, len(pair.x)]
            row.append(len(set(pair.groups)))
            for name in _COEFFICIENTS:
                row += _numbers(_coefficient(pair, name))
            row += [study.given, pair.p_value, pair.corrected, plain(pair.influential)]
            row += ["yes" if pair.shared else "no", pair.noise]
            rows.append(row)
    return Table.of(headings, rows)


def _coefficient(pair: Pair, name: str) -> Coefficient | None:
    found: Coefficient | None = getattr(pair.found, name, None)
    return found


def _numbers(one: Coefficient | None) -> list[object]:
    if one is None:
        return [None] * 5
    interval = (one.interval.low, one.interval.high) if one.interval else (None, None)
    return [one.value, *interval, *(one.without or (None, None))]


def _short(study: Study) -> Table:
    columns = [
        names("Measure"),
        text("Outcome"),
        Column("n"),
        Column("Spearman"),
        Column("without\none model"),
        Column("partial"),
        Column("Psi"),
        Column("p"),
    ]
    rows = [
        [
            *map(Cell, pair.labels),
            Cell(str(len(pair.x))),
            _with_interval(_coefficient(pair, "spearman")),
            _without(_coefficient(pair, "spearman")),
            _plain(_coefficient(pair, "partial")),
            _plain(_coefficient(pair, "granulated")),
            _p_value(pair.corrected),
        ]
        for pair in study.pairs
    ]
    dropped = {2} if len({len(pair.x) for pair in study.pairs}) < 2 else set()
    dropped |= set() if any(_coefficient(pair, "partial") for pair in study.pairs) else {5}
    dropped |= set() if study.matched.sets else {6}
    table = Table(columns, rows, sections=_sections(study))
    table = table.only([at for at in range(len(columns)) if at not in dropped])
    return Table(table.columns, table.rows, _title(study), "", _notes(study), _sections(study))


def _details(study: Study) -> Table:
    columns = [names("Measure"), text("Outcome"), *map(Column, _COEFFICIENTS.values())]
    columns += [Column("p"), Column("p, Holm"), text("most influential"), Column("shared noise")]
    rows = [
        [
            *map(Cell, pair.labels),
            *(_with_interval(_coefficient(pair, name)) for name in _COEFFICIENTS),
            _p_value(pair.p_value),
            _p_value(pair.corrected),
            Cell(plain(pair.influential)),
            _shared(pair),
        ]
        for pair in study.pairs
    ]
    notes = [
        "Shared noise: both are estimated from the same examples, and at most that much of "
        "Pearson's coefficient is their common noise: the product of both mean standard errors, "
        "each over the standard deviation between the models; ? where one is not known.",
    ]
    return Table(columns, rows, "All coefficients", "", notes, _sections(study))


def _title(study: Study) -> str:
    grouped = f" in {study.groups} groups" if study.groups < study.models else ""
    return f"{study.title}: {study.models} models{grouped}"


def _sections(study: Study) -> list[int]:
    measured = [pair.measure for pair in study.pairs]
    return [at for at in range(1, len(measured)) if measured[at] != measured[at - 1]]


def _with_interval(one: Coefficient | None) -> Cell:
    if one is None:
        return MISSING
    spread = "" if one.interval is None else f"[{one.interval.low:+.2f}, {one.interval.high:+.2f}]"
    return Cell(f"{one.value:+.2f}", spread, value=one.value)


def _plain(one: Coefficient | None) -> Cell:
    return MISSING if one is None else Cell(f"{one.value:+.2f}", value=one.value)


def _without(one: Coefficient | None) -> Cell:
    if one is None or one.without is None:
        return MISSING
    return Cell(f"{one.without[0]:+.2f} to {one.without[1]:+.2f}")


def _p_value(p: float | None) -> Cell:
    if p is None:
        return MISSING
    return Cell(f"{p:.3f}" if p >= 0.001 else "<0.001", value=p)


def _shared(pair: Pair) -> Cell:
    if not pair.shared:
        return MISSING
    return Cell("?") if pair.noise is None else Cell(f"{pair.noise:.2f}", value=pair.noise)


def _notes(study: Study) -> list[str]:
    grouped = study.groups < study.models
    what = "groups of models" if grouped else "models"
    notes = [
        f"Robust error is that under {study.attack}. Brackets: 95 % bootstrap intervals over the "
        f"{what}, as if they were a random sample. Without one model: the least and the most that "
        "Spearman's coefficient is when any one model is left out.",
        _partial(study),
    ]
    if study.matched.sets:
        by = ", ".join(sorted(study.matched.sets))
        known = "" if study.known == study.models else f" of the {study.known} that are known"
        notes.append(f"Psi: mean of Kendall's within one hyper-parameter{known}: {plain(by)}.")
    else:
        notes.append(f"No Psi (Kendall's within one hyper-parameter): {study.matched.reason}.")
    return [*notes, _tested(study, what), *_cautions(study)]


def _partial(study: Study) -> str:
    if any(_coefficient(pair, "partial") for pair in study.pairs):
        return f"Partial: Spearman's with {study.given} held fixed."
    return (
        f"No partial coefficients: {study.given} is not known of all models or does not vary, or "
        f"there are fewer than {FEWEST_GROUPS} models."
    )


def _tested(study: Study, what: str) -> str:
    if all(pair.p_value is None for pair in study.pairs):
        return f"No p values: too few {what} can change places, or nothing varies."
    where = " of one architecture" if study.within else ""
    count = sum(pair.p_value is not None for pair in study.pairs)
    return f"p: {what}{where} exchanged, Spearman's; Holm's correction for {count} pairs."


def _cautions(study: Study) -> list[str]:
    found = []
    grouped = study.groups < study.models
    if study.groups < FEWEST_GROUPS:
        few = "group of models" if study.groups == 1 else "groups of models"
        said = f"Only {study.groups} {few if grouped else 'models'}"
        found.append(f"{said}: no interval can be had from fewer than {FEWEST_GROUPS}.")
    elif grouped and study.groups < _FEW_GROUPS:
        found.append(f"Only {study.groups} groups: the intervals are rough.")
    if study.architectures > 1 and not study.within:
        found.append(
            f"{study.architectures} architectures: WCI, traces and eigenvalues depend on them, so "
            "that part of a correlation may be the architectures'."
        )
    shared = [pair for pair in study.pairs if pair.shared]
    if shared:
        worst = max(shared, key=lambda pair: pair.noise or 0)
        said = (
            f"{len(shared)} of {len(study.pairs)} pairs are estimates from the same examples, "
            "whose errors go together"
        )
        if worst.noise is not None:
            said += (
                f": that may be up to {worst.noise:.2f} of a coefficient ({worst.labels[0]}, "
                f"{worst.labels[1]}; the others in the columns on shared noise)"
            )
        found.append(f"{said}.")
    return found
