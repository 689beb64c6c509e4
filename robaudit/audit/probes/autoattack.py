"""Robust accuracy under AutoAttack, by the reference library or by robaudit's own code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from robaudit.audit.probe import Attack
from robaudit.errors import NotMeasuredError
from robaudit.measures import measure
from robaudit.types import no_cache

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context
    from robaudit.audit.plan import Plan
    from robaudit.schema import Measurement
    from robaudit.types import Cache, Progress, ThreatModel


@dataclass(frozen=True)
class AutoAttack(Attack):
    """AutoAttack, by the reference library or by robaudit's own code.

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
        ),
    )

    version: Literal["standard", "plus", "rand"] = "standard"
    batch_size: int = 250
    engine: Literal["reference", "native"] = "reference"

    @classmethod
    def for_gate(cls, plan: Plan) -> Self:
        """By robaudit's own code: the library's verdicts depend on batches."""
        return cls(engine="native")

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        settings = {**asdict(self), "engine": "pyautoattack"}
        if self.engine == "native":
            settings["engine"] = "robaudit"
            del settings["batch_size"]
        return settings

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import attacks
        from robaudit.audit.ensembles import confirmed, pieces, searcher

        examples = context.splits[context.main]
        native = self.engine == "native"

        def search(
            threat: ThreatModel, rows: Tensor, plain: bool, progress: Progress | None
        ) -> AttackResult:
            cache = pieces(context, self, threat, plain)
            x, y = examples.x[rows], examples.y[rows]
            if not native:
                return self.by_library(context, threat, x, y, cache, plain, progress)
            return attacks.native_autoattack(
                searcher(context, plain),
                x,
                y,
                threat,
                version=self.version,
                seed=context.seed,
                index=examples.index[rows],
                cache=cache,
                progress=progress,
            )

        label = f"AutoAttack {self.version}{' (native)' if native else ''}"
        return confirmed(context, self, label, search)

    def by_library(
        self,
        context: Context,
        threat: ThreatModel,
        x: Tensor,
        y: Tensor,
        cache: Cache = no_cache,
        plain: bool = False,
        progress: Progress | None = None,
    ) -> AttackResult:
        """The attack by its reference library; ``plain``: on the original network in float32."""
        from robaudit import attacks
        from robaudit.engine import Voted

        model = context.model
        if isinstance(model, Voted):
            if self.version != "rand":
                raise NotMeasuredError(
                    "the network draws at random, which the library's version "
                    f"{self.version} does not average over: give --version rand, or "
                    "--engine native"
                )
            model = model.network
        return attacks.autoattack(
            model,
            x,
            y,
            threat,
            version=self.version,
            seed=context.seed,
            batch_size=self.batch_size,
            faster=not plain,
            cache=cache,
            progress=progress,
        )
