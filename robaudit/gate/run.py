"""Run a policy on one checkpoint."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

import robaudit
from robaudit.audit import Plan, audit
from robaudit.audit.context import Context
from robaudit.audit.doubts import Findings
from robaudit.audit.draws import network_of
from robaudit.audit.failures import not_measured
from robaudit.audit.plan import planned
from robaudit.audit.probe import PerExample
from robaudit.audit.probes import Clean, giving, named
from robaudit.audit.provenance import provenance
from robaudit.audit.rows import RowAttacks
from robaudit.audit.run import data_of, subject_of
from robaudit.audit.sanity import sanity
from robaudit.checkpoints.suitability import check_suits
from robaudit.display import Watch, no_watch
from robaudit.engine import Asked, devices_of, seed_for
from robaudit.engine.precision import coarsest
from robaudit.engine.runner import BatchSize
from robaudit.errors import NotMeasuredError
from robaudit.gate.baseline import Baseline, Before, before
from robaudit.gate.decisions import doubting, from_measurement, from_result, hypothesis, undecided
from robaudit.gate.policy import Policy, Rule, SuitePolicy
from robaudit.gate.sequential import Rows, sequential_test
from robaudit.gate.unfinished import not_opened
from robaudit.measures import find
from robaudit.schema import (
    Decision,
    Provenance,
    Report,
    Subject,
    Suite,
    Threat,
    Verdict,
)
from robaudit.types import Examples, Progress, ThreatModel


@dataclass(frozen=True)
class Population:
    """What a suite's rules are about.

    Attributes:
        train: where one of them is on a gap or a bound.
        data_dir: where data sets are.
    """

    suite: SuitePolicy
    examples: Examples
    threat: ThreatModel
    train: Examples | None = None
    data_dir: Path | None = None


def gate(
    model: nn.Module,
    policy: Policy,
    populations: Sequence[Population],
    *,
    baselines: Sequence[Baseline] = (),
    exhaustive: bool = False,
    batch_size: BatchSize = "auto",
    precision: Asked = "auto",
    watch: Watch = no_watch,
    progress: Progress | None = None,
    samples: int | None = None,
    straight_through: Sequence[str] = (),
) -> Verdict:
    """Decide every rule of ``policy``.

    Accuracies are decided example by example (:mod:`robaudit.gate.sequential`), AutoAttack by
    robaudit's own engine, whose verdicts do not depend on batches; everything else is measured by
    one audit with the settings of the suite's preset. A rule whose attack or measurement cannot be
    run is inconclusive, and the others are decided all the same.

    Args:
        model: as for :func:`robaudit.audit.audit`.
        populations: one for each suite, in the policy's order.
        baselines: what ``max_drop`` compares with.
        exhaustive: look at every example.
        progress: is told how many suites are decided.
        samples, straight_through: as for :func:`robaudit.audit.audit`.

    Raises:
        UsageError: a ``max_drop`` without a baseline that is like it.
        CheckpointError: the model does not take the images, or its weights are not finite.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    decisions: list[Decision] = []
    warnings = list(getattr(getattr(model, "origin", None), "warnings", ()))
    for at in populations:
        check_suits(model, at.examples)
    runs = []
    for at in populations:
        own = network_of(model, at.examples, samples, at.suite.seed, straight_through)
        runs.append(_Suite(own, at, batch_size, precision, watch))

    def here() -> Provenance:
        return provenance(
            seed=populations[0].suite.seed,
            started=started,
            seconds=time.perf_counter() - clock,
            devices=devices_of(model),
            batch_size=None if batch_size == "auto" else batch_size,
            precision=coarsest(run.context.engine.precision for run in runs),
            nudge=max(run.context.nudge for run in runs),
        )

    sides = [run.compare(baselines, policy.path, here) for run in runs]
    for place, (run, side) in enumerate(zip(runs, sides, strict=True)):
        if progress is not None:
            progress(place, len(runs))
        findings = sanity(run.context)
        decided = run.decide(side, exhaustive, findings)
        warnings += [*findings.unplaced(one.metric for one in decided), *run.warnings()]
        decisions += decided
    return _verdict(
        subject_of(model),
        policy,
        populations,
        decisions,
        warnings,
        here(),
    )


def not_gated(
    source: str, policy: Policy, populations: Sequence[Population], reason: str
) -> Verdict:
    """The verdict on a checkpoint that could not be opened: every rule inconclusive."""
    decisions = [
        undecided(rule, at.suite.name, "Not measured.", reason)
        for at in populations
        for rule in at.suite.rules
    ]
    here = provenance(
        seed=populations[0].suite.seed,
        started=datetime.now(UTC),
        seconds=0.0,
        devices=(torch.device("cpu"),),
        batch_size=None,
    )
    return _verdict(not_opened(source), policy, populations, decisions, [], here)


def _verdict(
    subject: Subject,
    policy: Policy,
    populations: Sequence[Population],
    decisions: list[Decision],
    warnings: list[str],
    here: Provenance,
) -> Verdict:
    return Verdict(
        robaudit=robaudit.__version__,
        subject=subject,
        policy=policy.path,
        policy_sha256=policy.sha256,
        suites=[
            Suite(
                name=at.suite.name,
                data=data_of(at.examples),
                threat=Threat(norm=at.threat.norm, eps=at.threat.eps),
            )
            for at in populations
        ],
        decisions=decisions,
        warnings=list(dict.fromkeys(warnings)),
        provenance=here,
    )


class _Suite:
    """One suite's rules on their way to decisions."""

    def __init__(
        self,
        model: nn.Module,
        population: Population,
        batch_size: BatchSize,
        precision: Asked,
        watch: Watch,
    ) -> None:
        self.population = population
        self.suite, self.examples = population.suite, population.examples
        self.plan = planned(self.suite.preset, union=self.suite.union)
        self.context = Context(
            model,
            {self.examples.split: self.examples},
            population.threat,
            self.suite.seed,
            batch_size,
            precision,
            watch=watch,
        )
        self.sequential = [rule for rule in self.suite.rules if find(rule.metric).stages]
        self.measured = [rule for rule in self.suite.rules if not find(rule.metric).stages]
        stages = {stage for rule in self.sequential for stage in find(rule.metric).stages}
        attacks = {stage: named(stage).fitting(self.plan) for stage in stages}
        self.attacks = RowAttacks(
            self.context,
            {name: probe for name, probe in attacks.items() if isinstance(probe, PerExample)},
        )
        self._audited: list[str] = []
        self._found: Report | None = None

    def compare(
        self, baselines: Sequence[Baseline], policy: str, here: Callable[[], Provenance]
    ) -> dict[Rule, Before]:
        """The baseline's side of each ``max_drop``, found out before any work."""
        threat = self.population.threat
        run = here() if baselines else None
        return {
            rule: before(
                rule,
                baselines,
                data_of(self.examples),
                Threat(norm=threat.norm, eps=threat.eps),
                self.examples.index.numpy(),
                self.examples.y.numpy(),
                self.attacks.described,
                policy,
                run,
            )
            for rule in self.sequential
            if rule.kind == "max_drop"
        }

    def decide(
        self, sides: dict[Rule, Before], exhaustive: bool, findings: Findings
    ) -> list[Decision]:
        """In the policy's order, in view of what is odd about the network."""
        found = {**self._looked(sides, exhaustive), **self._measured()}
        return [
            doubting(
                found[rule],
                [*findings.about(rule.metric), *self._doubts(rule)],
                # A doubt about a proof is that it is none.
                allowed=self.suite.doubts == "allow" and find(rule.metric).basis != "proof",
                baseline=sides[rule].doubts if rule in sides else (),
            )
            for rule in self.suite.rules
        ]

    def _doubts(self, rule: Rule) -> list[str]:
        """What its attacks, or the audit, met that speaks against the number."""
        chain = find(rule.metric).stages
        if chain:
            return self.attacks.doubts(chain[-1])
        found = None if self._found is None else self._found.get(rule.metric)
        return [] if found is None else found.doubts

    def warnings(self) -> list[str]:
        """What attacks and audit warned of, each once whatever its numbers."""
        kinds = {re.sub(r"\d+", "#", note): note for note in self.attacks.notes}
        return [*kinds.values(), *self._audited, *self.context.running_notes()]

    def _looked(self, sides: dict[Rule, Before], exhaustive: bool) -> dict[Rule, Decision]:
        rules, n = self.sequential, len(self.examples)
        if not rules:
            return {}
        asked = [hypothesis(rule, n, sides.get(rule)) for rule in rules]
        # By hash, because no library's generator promises the same order in its next release.
        seed, index = self.suite.seed, self.examples.index.tolist()
        order = np.array(sorted(range(n), key=lambda i: seed_for(seed, "gate", index[i])))
        with self.context.watch(f"examples looked at, {self.suite.name}") as progress:
            told = sequential_test(
                asked,
                order,
                self._attack,
                max_n=self.suite.max_n,
                exhaustive=exhaustive,
                tell=progress,
            )
        return {
            rule: from_result(rule, self.suite.name, one, result, n, sides.get(rule), self._words())
            for rule, one, result in zip(rules, asked, told, strict=True)
        }

    def _attack(self, name: str, rows: Rows) -> Rows:
        # Whatever a network does under attack, it must not end the other rules, nor pass.
        with not_measured():
            return self.attacks.stands(name, torch.from_numpy(rows)).numpy()

    def _measured(self) -> dict[Rule, Decision]:
        if not self.measured:
            return {}
        kinds = {giving(rule.metric) for rule in self.measured} - {Clean}
        probes = [probe for kind in kinds if (probe := kind.fitting(self.plan)) is not None]
        order = [type(probe) for probe in self.plan.probes]
        probes.sort(key=lambda one: order.index(type(one)) if type(one) in order else -1)
        plan = Plan(n=self.plan.n, probes=tuple(probes))
        few, train = _first(self.examples, plan.n), self.population.train
        context = self.context
        try:
            with not_measured():
                report = audit(
                    context.model,
                    few,
                    context.threat,
                    plan,
                    seed=context.seed,
                    train=None if train is None else _first(train, plan.n),
                    batch_size=context.batch_size,
                    precision=context.precision,
                    watch=context.watch,
                    data_dir=self.population.data_dir,
                ).report
        except NotMeasuredError as error:
            return {
                rule: undecided(rule, self.suite.name, "Not measured.", error.message)
                for rule in self.measured
            }
        self._audited = [*report.warnings, *(w for m in report.measurements for w in m.warnings)]
        self._found = report
        return {
            rule: from_measurement(rule, self.suite.name, report.get(rule.metric))
            for rule in self.measured
        }

    def _words(self) -> dict[str, str]:
        """The attacks by name, in words for a sentence."""
        return {
            name: find(f"accuracy.{name}").attack_in(self.attacks.described(name), sentence=True)
            for name in self.attacks.attacks
        }


def _first(examples: Examples, n: int) -> Examples:
    if len(examples) <= n:
        return examples
    return examples.taken(slice(n))
