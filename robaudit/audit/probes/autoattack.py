"""Robust accuracy under AutoAttack, by the reference library or by robaudit's own code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from robaudit.audit.probe import Attack
from robaudit.errors import NotMeasuredError
from robaudit.measures import measure
from robaudit.schema import Measurement
from robaudit.types import AutoAttackVersion

if TYPE_CHECKING:
    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context
    from robaudit.audit.ensembles import Search
    from robaudit.audit.plan import Plan
    from robaudit.types import ThreatModel

AutoAttackEngine = Literal["reference", "native"]


@dataclass(frozen=True)
class AutoAttack(Attack):
    """AutoAttack, by the reference library or by robaudit's own code.

    The preset ``standard`` has robaudit's, ``paper`` the library's.

    Attributes:
        batch_size: of the reference library, whose verdicts depend on it.
    """

    name = "autoattack"
    measures = (
        measure(
            "accuracy.autoattack",
            "Robust accuracy, {attack}",
            place=50,
            attack="AutoAttack",
            stages=("clean", "pgd", "fast", "autoattack"),
            passes=11_700,
            heading="AutoAtt.\nacc. %",
            formula="share that AutoAttack left correct",
        ),
    )

    version: AutoAttackVersion = "standard"
    batch_size: int = 250
    engine: AutoAttackEngine = "reference"

    @classmethod
    def fitting(cls, plan: Plan) -> Self:
        """By robaudit's own code: the library's verdicts depend on batches."""
        return cls(engine="native")

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        settings = {**asdict(self), "engine": "pyautoattack"}
        if self.engine == "native":
            settings["engine"] = "robaudit"
            del settings["batch_size"]
        return settings

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks import native_autoattack
        from robaudit.audit.ensembles import confirmed

        if self.engine == "reference":
            return confirmed(context, self, f"AutoAttack {self.version}", self._by_library)
        return confirmed(
            context,
            self,
            f"AutoAttack {self.version} (native)",
            lambda run: run.by(
                native_autoattack, version=self.version, judge=context.searcher(plain=True)
            ),
        )

    def _by_library(self, run: Search) -> AttackResult:
        from robaudit.attacks import autoattack
        from robaudit.engine import Voted

        model = run.context.model
        if isinstance(model, Voted):
            if self.version != "rand":
                raise NotMeasuredError(
                    "the network draws at random, which the library's version "
                    f"{self.version} does not average over: give --version rand, or "
                    "--engine native"
                )
            model = model.network
        return autoattack(
            model,
            run.x,
            run.y,
            run.threat,
            version=self.version,
            seed=run.context.seed,
            batch_size=self.batch_size,
            faster=not run.plain,
            cache=run.cache,
            progress=run.progress,
        )
