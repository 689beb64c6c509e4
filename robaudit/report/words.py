"""Measurements, and the facts of a report, in words."""

from __future__ import annotations

from robaudit.measures import SECTIONS, find, known
from robaudit.report.text import plain
from robaudit.schema import Measurement, Report, Subject

DOUBTS_HEADING = "Doubts: values that end in ? may overstate robustness"
_MOST_EVIDENCE = 6
_SPLITS = {"test": 0, "train": 1}


def attack_names() -> tuple[str, ...]:
    """The measures that are an accuracy under some attack, in reading order."""
    return tuple(row.name for row in known() if row.attack)


def attack(measurement: Measurement) -> str:
    """The attack of an ``accuracy.*`` measurement: ``PGD-20 x10`` is 20 steps, 10 restarts."""
    return plain(find(measurement.name).attack_in(measurement.settings))


def attack_in_words(name: str) -> str:
    """The attack of ``accuracy.NAME`` without its settings, as in a sentence."""
    return find(f"accuracy.{name}").attack_in({}, sentence=True)


def label(measurement: Measurement) -> str:
    """The measurement's name in words; an unknown one's own name."""
    words = find(measurement.name).label
    if words == measurement.name:
        return plain(measurement.name)
    settings = measurement.settings
    objective = plain(str(settings.get("objective", "?"))).upper()
    part = plain(str(settings.get("part", "")))
    named = words.format(attack=attack(measurement), objective=objective, part=part)
    if settings.get("operator") == "gauss-newton":
        named = named.replace("Hessian", "Gauss-Newton")
        named += "" if "Gauss-Newton" in named else ", Gauss-Newton"
    if settings.get("protocol") not in (None, "default"):
        named += f", {plain(str(settings['protocol']))}"
    if settings.get("tolerance") is not None and "perturbations" in measurement.details:
        named += f", {plain(str(measurement.details['perturbations']))} draws"
    chosen = settings.get("layers")
    if isinstance(chosen, list | tuple):
        named = named.removesuffix(", all layers") + ", chosen layers"
    elif chosen == "all" and not measurement.name.startswith("hessian."):
        named = named.removesuffix(", all layers") + ", all parameters"
    return named


def meaning(name: str) -> str:
    """What the measure of that name is: its formula, without markup; ``""`` for an unknown one.

    >>> meaning("wci")
    'sum_k sqrt(‖W_k‖²_F Tr(H_k))'
    """
    return find(name).formula.replace("`", "").replace("**", "")


def group(measurement: Measurement) -> str:
    """The heading under which the measurement is shown."""
    return find(measurement.name).section


def ordered(report: Report) -> list[Measurement]:
    """All measurements in reading order: by section, then measure, test before train."""
    places = {row.name: place for place, row in enumerate(known())}
    return sorted(
        report.measurements,
        key=lambda m: (
            SECTIONS.index(find(m.name).section),
            places.get(m.name, len(places)),
            _SPLITS.get(m.split, len(_SPLITS)),
        ),
    )


def has_splits(report: Report) -> bool:
    """Whether some measurement is of other examples than the audited split's."""
    return any(m.split not in (report.data.split, "gap") for m in report.measurements)


def interval_heading(report: Report) -> str:
    """``95 % interval`` where all intervals are, else ``Interval``."""
    levels = {m.interval.level for m in report.measurements if m.interval is not None}
    return f"{100 * levels.pop():.4g} % interval" if len(levels) == 1 else "Interval"


def not_measured(report: Report) -> list[str]:
    """One line for each measurement that failed or was skipped, with the reason."""
    splits = has_splits(report)
    return [
        f"{label(m)}{f' ({plain(m.split)})' if splits else ''} {m.status}: {plain(m.reason)}"
        for m in ordered(report)
        if m.status != "ok"
    ]


def doubts(report: Report) -> list[str]:
    """One line for each doubt, with what it is about."""
    found: dict[str, list[str]] = {}
    for m in ordered(report):
        for text in m.doubts:
            found.setdefault(plain(text), []).append(label(m))
    return [f"{', '.join(dict.fromkeys(about))}: {text}" for text, about in found.items()]


def warnings(report: Report) -> list[str]:
    """One line for each warning, none of them twice."""
    whole = [plain(text) for text in report.warnings]
    single = (f"{label(m)}: {plain(text)}" for m in ordered(report) for text in m.warnings)
    return list(dict.fromkeys([*whole, *single]))


def architecture(subject: Subject) -> str:
    """The network, whether it is said, determined or assumed, and by whom."""
    by = f"identified by {plain(subject.identified_by)}"
    if subject.architecture_known == "assumed":
        by = "assumed: others fit as well, and --guess was given"
    elif subject.architecture_known is not None:
        by = f"{subject.architecture_known} by {plain(subject.identified_by)}"
    return f"{plain(subject.architecture)}, {subject.parameters:,} parameters; {by}"


def normalization(subject: Subject) -> str:
    """The normalisation, whether it is said, determined or assumed, and by whom."""
    known: str = subject.normalization_known or "decided"
    if known == "assumed":
        known = "assumed, by --guess"
    by = plain(subject.normalized_by)
    text = plain(subject.normalization)
    if by and known.startswith("assumed"):
        text += f"; {known}: {by}"
    elif by or subject.normalization_known:
        text += f"; {known}" + (f" by {by}" if by else "")
    return text + (f"; {plain(subject.harmless)}" if subject.harmless else "")


def assumptions(subject: Subject) -> list[str]:
    """One line for each of network and normalisation that is a guess."""
    found = {
        "Network": (subject.architecture_known, architecture(subject)),
        "Normalisation": (subject.normalization_known, normalization(subject)),
    }
    return [f"{what}: {said}" for what, (known, said) in found.items() if known == "assumed"]


def evidence(subject: Subject) -> str:
    """The accuracies that decided what the checkpoint left open, the best first; or ``""``."""
    tried = sorted(subject.evidence, key=lambda one: (-one.attacked, -one.n, -one.accuracy))
    if len(tried) < 2:
        return ""
    networks = len({one.architecture for one in tried}) > 1
    shown = [
        f"{plain(one.architecture) + ' ' if networks else ''}{plain(one.normalization)} "
        f"{one.accuracy:.1%} of {one.n}"
        + (
            ""
            if one.robust_accuracy is None
            else f", PGD-10 {one.robust_accuracy:.1%} of {one.attacked}"
        )
        for one in tried[:_MOST_EVIDENCE]
    ]
    more = len(tried) - len(shown)
    return "; ".join(shown) + (f"; and {more} less likely" if more else "")
