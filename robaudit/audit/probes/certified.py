"""Certified accuracy: the share of examples that are proven robust, and the median radius."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from robaudit.audit.numbers import LEVEL, accuracy
from robaudit.audit.probe import PerExample, Withstood
from robaudit.audit.probes.pgd import Pgd
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.measures import measure
from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.audit.context import Context
    from robaudit.certified import Certificates
    from robaudit.types import ThreatModel

CertifiedMethod = Literal["branch", "alpha", "crown"]
# Breaks most of what is not robust, where no attack did before.
_QUICK = Pgd(steps=10)
# The largest radius tried, in radii of the threat model.
_LARGEST = 4


@dataclass(frozen=True)
class Certified(PerExample):
    """Examples whose label is proven the network's answer in the whole ball and box.

    Only those are tried that are classified correctly and that no attack before it broke; where
    none ran, it runs a short PGD.

    Attributes:
        method: ``crown``: one linear bound; ``alpha``: with slopes optimised; ``branch``: also
            branch and bound on what is left.
        budget: seconds of branching an image.
        splits: the most branches an image instead, so that results do not depend on the machine's
            speed where the budget is ample.
        radius: also the median radius that is certified.
    """

    name = "certified"
    measures = (
        measure(
            "accuracy.certified",
            "Certified accuracy",
            basis="proof",
            place=75,
            stages=("clean", "pgd", "certified"),
            passes=12_000,
            heading="Certif.\nacc. %",
            study="certified accuracy",
            outcome=True,
            formula="share with a proof of `f_y(x') > max_{j != y} f_j(x')` for all `x'` in ball "
            "and box; a lower bound",
        ),
        measure(
            "distance.certified",
            "Median certified radius",
            basis="proof",
            place=85,
            low=0.0,
            ruled=False,
            formula="median of the largest radius, up to four times `eps`, that bisection "
            "certified; 0 for a misclassified image; a lower bound",
            error="interval between order statistics",
        ),
    )

    method: CertifiedMethod = "branch"
    budget: float = 30.0
    splits: int | None = None
    radius: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.budget < float("inf"):
            raise UsageError(
                f"budget must be a number of seconds, not {self.budget:g}", field="budget"
            )
        if self.splits is not None and self.splits < 0:
            raise UsageError(f"splits must not be negative, but is {self.splits}", field="splits")

    @property
    def expected(self) -> tuple[str, ...]:
        return tuple(row.name for row in self.measures[: 1 + self.radius])

    def price(self, n: int, n_train: int) -> int:
        return n * (_QUICK.passes_each + self.measures[0].passes)

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        branching = {"budget": self.budget, "splits": self.splits}
        return {"method": self.method, **(branching if self.method == "branch" else {})}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit.attacks.result import known
        from robaudit.audit.certificates import broken_by, standing

        _check_deterministic(context)
        main = context.main
        searched = broken_by(context).keys() - {"transfer"}
        by: dict[str, str] = {}
        if not searched:
            quick = context.adversarial(main, _QUICK)
            context.broken["pgd"] = known(quick.broken_x), ~quick.robust
            by = {"searched_by": _QUICK.title, "searched_in": quick.searched}
        tried = standing(context)
        found = self._certificates(context, tried)
        certified = found.certified.cpu() & tried
        context.keep(main, "accuracy.certified", certified)
        context.keep(main, "certified_lower", found.lower)
        by_method = Counter(name for name in found.method if name)
        details = {
            "tried": int(tried.sum()),
            "by_method": {name: by_method[name] for name in ("crown", "alpha", "branch")},
            "splits": int(found.splits.sum()),
            **by,
        }
        first = accuracy(
            "accuracy.certified",
            main,
            certified,
            settings=self.described(context.threat),
            details=details,
            warnings=list(found.notes),
        )
        return [first, *([self._median_radius(context, certified)] if self.radius else [])]

    def withstood(self, part: Context) -> Withstood:
        """As :meth:`run` finds, of examples that the attacks before have left."""
        import torch

        _check_deterministic(part)
        examples = part.splits[part.main]
        found = self._certificates(part, torch.ones(len(examples), dtype=torch.bool))
        return Withstood(found.certified.cpu(), None, list(found.notes))

    def _certificates(self, context: Context, tried: Tensor) -> Certificates:
        from robaudit.certified import certify

        examples, threat = context.splits[context.main], context.threat
        rows = examples.index[tried].tolist()
        # Whatever was certified or split counts for every method and budget.
        kept = (threat.norm, threat.eps, examples.sha256, rows)
        with context.watch(f"certifying {len(rows)} {context.main} examples") as progress:
            return certify(
                context.own,
                examples.x,
                examples.y,
                threat,
                method=self.method,
                budget=self.budget,
                splits=self.splits,
                tried=tried,
                cache=context.keeping("certified", *kept),
                progress=progress,
                index=examples.index,
            )

    def _median_radius(self, context: Context, certified: Tensor) -> Measurement:
        import torch

        from robaudit.certified import certified_radii
        from robaudit.statistics import median_interval

        examples, threat = context.splits[context.main], context.threat
        # Bisection halves it a fixed number of times, so that a larger one would be coarser.
        settings = {"method": "crown", "norm": threat.norm, "largest": _LARGEST * threat.eps}
        title = f"certified radii of {len(examples)} {context.main} examples"
        with context.watch(title) as progress:
            radii = certified_radii(
                context.own,
                examples.x,
                examples.y,
                threat.norm,
                largest=_LARGEST * threat.eps,
                index=examples.index,
                cache=context.keeping("radii", settings, examples.sha256),
                progress=progress,
            )
        radii = torch.where(certified, radii.cpu().double().clamp_min(threat.eps), radii.cpu())
        context.keep(context.main, "certified_radius", radii)
        middle, interval = median_interval(radii.sort().values.double().numpy(), LEVEL)
        assert middle is not None  # all radii are finite
        return Measurement(
            name="distance.certified",
            split=context.main,
            settings=settings,
            n=len(examples),
            value=middle,
            unit=threat.norm,
            interval=interval,
        )


def _check_deterministic(context: Context) -> None:
    if context.samples is not None:
        raise NotMeasuredError(
            "not certifiable: the network draws at random, and bounds are of one without noise"
        )
