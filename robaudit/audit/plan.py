"""A plan: the probes of one audit; and the presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from robaudit.audit.probe import PerExample, Probe
from robaudit.audit.probes import (
    AutoAttack,
    Average,
    Classes,
    Clean,
    Corruptions,
    Cw,
    Hessian,
    Pgd,
    TopLayer,
    Union,
    Wci,
    Worst,
    known,
)
from robaudit.audit.probes.pgd import PGD10
from robaudit.errors import UsageError, did_you_mean
from robaudit.protocols import STUTZ_STEP_OVER_EPS
from robaudit.types import parse_threats

P = TypeVar("P", bound=Probe)


@dataclass(frozen=True)
class Plan:
    """The probes of one audit, in the order in which they run.

    Clean images are always measured first. Probes that make adversarial examples should come before
    probes that share them.

    Attributes:
        n: examples of each split, as far as the data has them.
        probes: no measure may be given by two of them.
        radii: smaller than the threat model's, for a curve of accuracies.

    Raises:
        UsageError: two probes give one measure.

    Example:
        >>> from robaudit.audit.probes import Pgd, Wci
        >>> plan = Plan(n=500, probes=(Pgd(steps=10), Wci(Pgd(steps=10))))
        >>> plan.get(Pgd).steps
        10
    """

    n: int = 1000
    probes: tuple[Probe, ...] = ()
    radii: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        given: dict[str, Probe] = {}
        for probe in self.probes:
            for row in probe.measures:
                if row.name in given:
                    raise UsageError(
                        f"two probes of a plan give {row.name}: {given[row.name]} and {probe}"
                    )
                given[row.name] = probe

    @property
    def in_order(self) -> tuple[Probe, ...]:
        """Attacks and proofs, then what reads what they found, then the other probes."""

        def place(probe: Probe) -> int:
            return 0 if isinstance(probe, PerExample) else 1 if probe.reads_attacks else 2

        return tuple(sorted(self.probes, key=place))

    @property
    def attacks(self) -> bool:
        """Whether anything is measured for which a threat model is needed."""
        rows = [row for probe in self.probes for row in probe.measures]
        return bool(self.radii) or any(row.basis != "clean" for row in rows)

    @property
    def on_corrupted(self) -> bool:
        """Whether it can be measured where the data set has corrupted images alone."""
        return all(isinstance(probe, Corruptions) for probe in self.probes) and not self.radii

    def get(self, kind: type[P]) -> P | None:
        """The probe of exactly that type, or ``None``."""
        return next((probe for probe in self.probes if type(probe) is kind), None)

    def put(self, *probes: Probe) -> Plan:
        """The plan with these probes, each in place of the one of its type, else at the end."""
        own = {type(probe): probe for probe in self.probes}
        return replace(self, probes=tuple((own | {type(p): p for p in probes}).values()))

    def stages(self) -> list[tuple[str, Plan]]:
        """The plan's parts by name, which are finished one by one so that a kill costs the current.

        All attacks and proofs, whose pieces are kept singly, and what reads them; then each other
        probe. Adversarial examples that several stages need are pieces of an attack, kept by the
        first.

        >>> print(*(name for name, _ in preset("quick").stages()))
        attacks wci top_layer average worst
        """
        attacks = [p for p in self.probes if isinstance(p, PerExample) or p.reads_attacks]
        groups: dict[str, tuple[Probe, ...]] = {"attacks": tuple(attacks)}
        groups |= {probe.name: (probe,) for probe in self.probes if probe not in attacks}
        return [(stage, replace(self, probes=probes)) for stage, probes in groups.items()]

    def passes(self, n: int, n_train: int = 0) -> int:
        """Passes of one example that it takes at most; a backward pass counts as two.

        Adversarial examples that several probes need are counted once.

        Args:
            n: examples of the audited split.
            n_train: examples of the training split, for the generalisation gaps.
        """
        return sum(passes for _, passes in self.costs(n, n_train))

    def costs(self, n: int, n_train: int = 0) -> list[tuple[Probe, int]]:
        """The probes as they run, clean images first, with the passes that each adds."""
        found: list[tuple[Probe, int]] = []
        attacked: dict[Pgd, int] = {}
        for probe in (Clean(), *self.in_order):
            passes = probe.price(n, n_train)
            for pgd, examples in probe.shared(n, n_train).items():
                passes += max(0, examples - attacked.get(pgd, 0)) * pgd.passes_each
                attacked[pgd] = max(examples, attacked.get(pgd, 0))
            found.append((probe, passes))
        return found


_PGD20 = Pgd(steps=20)
# Flatness paper, sec. 4: PGD-20 of step 0.007 at eps 8/255; RLoss with ten restarts.
_STUTZ = Pgd(steps=20, step_over_eps=STUTZ_STEP_OVER_EPS)

PRESETS: dict[str, Plan] = {
    "quick": Plan(
        n=256,
        probes=(
            PGD10,
            Classes(),
            Wci(PGD10),
            TopLayer(PGD10),
            Average(PGD10, perturbations=5),
            Worst(PGD10, passes=10, restarts=2),
        ),
    ),
    "standard": Plan(
        n=1000,
        probes=(
            _PGD20,
            Cw(steps=20),
            AutoAttack(engine="native"),
            Classes(),
            Wci(PGD10),
            TopLayer(PGD10),
            Hessian(PGD10),
            Average(_PGD20),
            Worst(_PGD20, restarts=4),
        ),
    ),
    "paper": Plan(
        n=1000,
        probes=(
            replace(_STUTZ, restarts=10),
            Cw(steps=20),
            AutoAttack(),
            Classes(),
            Wci(PGD10),
            TopLayer(PGD10),
            Hessian(PGD10, n=512, probes=5),
            Average(_STUTZ),
            Worst(_STUTZ),
        ),
    ),
}


def preset(name: str) -> Plan:
    """The plan of a preset: ``quick`` (minutes), ``standard``, or ``paper`` (the papers' settings).

    Raises:
        UsageError: there is none of that name.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}", f"Known presets: {', '.join(PRESETS)}.")
    return PRESETS[name]


def planned(
    name: str, also: Sequence[str] = (), union: str | None = None, union_each: bool = False
) -> Plan:
    """The plan of a preset with further probes, each as it fits the preset's.

    Further attacks and proofs come before what is no attack, which can use what they found.

    Args:
        name: of the preset.
        also: names of probes. One that the preset has stays as it is there, but for AutoAttack,
            which is then native, and the classes, which come after the fast tier.
        union: norms with their radii, as for :func:`robaudit.types.parse_threats`; the accuracy
            under attacks in all of them is then measured, too.
        union_each: attack every example in every norm for it.

    Raises:
        UsageError: there is no such preset or probe, the probe has no default settings, or
            ``union`` is no list of norms.

    >>> [probe.name for probe in planned("quick", ["fast"]).probes]
    ['pgd', 'fast', 'classes', 'wci', 'top_layer', 'average', 'worst']
    """
    plan = preset(name)
    plan = plan.put(*(_fitting(probe, plan) for probe in also))
    if union is not None or union_each:
        plan = plan.put(Union(() if union is None else parse_threats(union), union_each))
    return replace(plan, probes=plan.in_order)


def _fitting(name: str, plan: Plan) -> Probe:
    kinds = {kind.name: kind for kind in known() if kind is not Clean}  # always measured
    fitting = {n: probe for n, kind in kinds.items() if (probe := kind.fitting(plan)) is not None}
    if name in fitting:
        return fitting[name]
    what = f"the probe {name!r} has no default settings"
    if name not in kinds:
        what = f"unknown probe {name!r}{did_you_mean(name, fitting)}"
    there = ", ".join(sorted(n for n, probe in fitting.items() if probe not in plan.probes))
    raise UsageError(what, f"Probes that can be added: {there}.")
