"""The base classes of probes.

Imports no torch, so that the registry of measures can read every probe's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from robaudit.measures import Measure

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.attacks.diagnostics import Diagnostics
    from robaudit.audit.context import Context
    from robaudit.audit.plan import Plan
    from robaudit.audit.probes.pgd import Pgd
    from robaudit.schema import Measurement
    from robaudit.types import ThreatModel

# Passes of one example: the gradient of a loss; the exact layer traces of ten classes.
GRADIENT, TRACES = 3, 20

Layers = tuple[str, ...] | Literal["all"] | None


class Probe(ABC):
    """One part of an audit: a frozen dataclass of settings with a way to run them.

    The module of a probe imports torch, and modules that import torch, inside functions only.

    Attributes:
        name: of the probe: ``pgd``.
        measures: the measures that it gives, as rows of the registry.
        reads_attacks: it reads what all attacks of the audit found: it runs after them, and where
            an audit is done in stages, in theirs.
    """

    name: ClassVar[str]
    measures: ClassVar[tuple[Measure, ...]]
    reads_attacks: ClassVar[bool] = False

    @abstractmethod
    def run(self, context: Context) -> list[Measurement]:
        """Measure; the first measurement gets the time that it took.

        Raises:
            NotMeasuredError: the network cannot be measured in this way; then each of
                :attr:`expected` is a failed measurement with that reason.
        """

    @property
    def expected(self) -> tuple[str, ...]:
        """The measurements that are failed ones where the probe cannot be run."""
        return tuple(row.name for row in self.measures)

    def described(self, threat: ThreatModel) -> dict[str, Any]:
        """The settings, as a measurement records them."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def price(self, n: int, n_train: int) -> int:
        """Passes of one example that it takes at most, beside those of :meth:`shared`.

        A backward pass counts as two. An attack is counted as if it broke no example.

        Args:
            n: examples of the audited split.
            n_train: examples of the training split; 0 where the gaps are not measured.
        """
        return 0

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        """The PGDs whose examples it needs, which are made once for all probes, and how many."""
        return {}

    @classmethod
    def fitting(cls, plan: Plan) -> Self | None:
        """The probe as it fits a plan: the plan's own, else one of default settings.

        Returns: ``None`` where the plan has none and some setting has no default.
        """
        return plan.get(cls) or cls.default()

    @classmethod
    def default(cls) -> Self | None:
        """The probe of default settings; ``None`` if some setting has no default."""
        settings = fields(cls)  # type: ignore[arg-type]
        return None if any(field.default is MISSING for field in settings) else cls()


@dataclass(frozen=True)
class Withstood:
    """What an attack or a proof leaves of some examples.

    Attributes:
        robust: ``(n,)`` bool.
        diagnostics: what an attack tells of the gradients that it used.
        notes: its warnings.
    """

    robust: Tensor
    diagnostics: Diagnostics | None
    notes: list[str]


class PerExample(Probe):
    """A probe that decides each example of the audited split: an attack, or a proof.

    Its first measurement is ``accuracy.NAME``; its outcomes have the same name.
    """

    def price(self, n: int, n_train: int) -> int:
        return n * self.measures[0].passes

    def withstood(self, part: Context) -> Withstood:
        """Decide the examples of ``part`` for a gate, which needs only which of them stand."""
        from robaudit.attacks.diagnostics import Diagnostics

        found = self.run(part)[0]
        seen = found.details.get("diagnostics")
        return Withstood(
            robust=part.outcomes[f"{part.main}.accuracy.{self.name}"],
            diagnostics=None if seen is None else Diagnostics(**seen),
            notes=found.warnings,
        )


class Attack(PerExample):
    """A probe that searches adversarial examples of the audited split."""
