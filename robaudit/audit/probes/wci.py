"""The Weight-Curvature Index with its layer traces, and the PAC-Bayes terms."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from robaudit.audit.names import authors, inside
from robaudit.audit.numbers import estimate, finite
from robaudit.audit.probe import TRACES, Layers, Probe
from robaudit.audit.probes.pgd import Pgd
from robaudit.measures import measure
from robaudit.schema import Measurement
from robaudit.types import Estimator

if TYPE_CHECKING:
    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context
    from robaudit.curvature import WeightCurvature
    from robaudit.engine.precision import Asked

_NO_TRAINING = "it is of the training split, and there is no training data"
_BESIDE = "WCI uses the Gauss-Newton traces, as on the other split"
_NO_SIZE = (
    "how large the training split is is not known: beta and lambda are the number of examples "
    "measured, with which the bound changes"
)


@dataclass(frozen=True)
class Bound:
    """Constants of the PAC-Bayes terms; ``None`` for those of :func:`robaudit.curvature.pac_bayes`.

    ``lambda_`` is the WCI paper's.
    """

    beta: float | None = None
    s0: float | None = None
    lambda_: float | None = None


@dataclass(frozen=True)
class Wci(Probe):
    """Layer traces, the Weight-Curvature Index and the PAC-Bayes terms, at PGD examples.

    WCI, its bound and the total trace are measured on every split.

    Attributes:
        layers: which weights, by the network's own names; ``None`` for convolutions, linear layers
            and attention projections, ``"all"`` for every parameter.
        memory: bytes beside the network; ``None`` for what is fast.
    """

    name = "wci"
    measures = (
        measure(
            "wci",
            "Weight-Curvature Index (WCI)",
            place=10,
            low=0.0,
            heading="WCI",
            of_one_architecture=True,
            study="WCI",
            formula="`sum_k sqrt(‖W_k‖²_F Tr(H_k))`",
            error="s.e. over examples by the delta method, layers correlated, normal interval; "
            "`details.bias`, below zero, is the bias of the roots, not subtracted",
        ),
        measure(
            "wci.bound",
            "Cauchy-Schwarz bound of WCI",
            place=20,
            low=0.0,
            error_bar="none",
            formula="`sqrt(sum_k ‖W_k‖²_F) sqrt(sum_k Tr(H_k))`",
            error="none; never below `wci`",
        ),
        measure(
            "weights.frobenius",
            "Weight norm ||W||_F",
            place=30,
            low=0.0,
            error_bar="exact",
            any_threat=True,
            study="weight norm",
            formula="`sqrt(sum_k ‖W_k‖²_F)`",
            error="exact",
        ),
        measure(
            "trace.total",
            "Trace, all layers",
            place=40,
            study="trace",
            formula="`sum_k Tr(H_k)`",
        ),
        measure(
            "pacbayes.bound",
            "PAC-Bayes bound, up to constants",
            place=100,
            formula="`R + ‖w‖² / (2 beta s0²) + (s0² / 2) Tr(H)`, `R` the mean loss at the `x'` of "
            "the **training** split, `w` and `H` those of the layers",
        ),
    )

    pgd: Pgd
    estimator: Estimator = "auto"
    probes: int = 1
    layers: Layers = None
    memory: int | None = None
    bound: Bound = Bound()

    @property
    def expected(self) -> tuple[str, ...]:
        return "wci", "trace.total"

    def price(self, n: int, n_train: int) -> int:
        return (n + n_train) * TRACES

    def shared(self, n: int, n_train: int) -> dict[Pgd, int]:
        return {self.pgd: n + n_train}

    def run(self, context: Context) -> list[Measurement]:
        from robaudit import curvature

        constants = self.bound
        curvature.check_constants(constants.beta, constants.s0, constants.lambda_)
        own = authors(context.model)

        def measured(split: str, estimator: Estimator) -> WeightCurvature:
            attacked = context.adversarial(split, self.pgd)
            n = len(attacked.x)
            with context.watch(f"layer traces on {n} {split} examples") as progress:
                return curvature.wci(
                    context.model,
                    attacked.x,
                    context.y(split, n),
                    estimator=estimator,
                    layers=inside(context.model, self.layers),
                    probes=self.probes,
                    seed=context.seed,
                    index=context.index(split, n),
                    memory=self.memory,
                    precision="float64" if context.double else context.precision,
                    progress=progress,
                )

        indices = {split: measured(split, self.estimator) for split in context.splits}
        fallen = [one for one in indices.values() if one.note is not None]
        if fallen:  # Gauss-Newton traces of one split are not to stand beside Hessians of another
            for split, one in indices.items():
                if one.note is None:
                    indices[split] = replace(
                        measured(split, fallen[0].traces.estimator), note=_BESIDE
                    )
        found = []
        for split, index in indices.items():
            attacked = context.adversarial(split, self.pgd)
            context.keep(split, "trace", index.traces.per_example)
            found += self._of_split(index, split, len(attacked.x), own, context.precision)
            # The training split comes last, where it is there: a bound is of no other.
            if split == context.training:
                found += self._bounds(context, attacked, index, own)
        if context.training is None and not isinstance(self.layers, tuple):
            found.append(
                Measurement(
                    name="pacbayes.bound",
                    split=context.main,
                    status="skipped",
                    reason=_NO_TRAINING,
                )
            )
        norm = math.sqrt(sum(layer.frobenius**2 for layer in index.layers))
        chosen = {} if self.layers is None else {"layers": self.layers}
        return [
            *found,
            Measurement(name="weights.frobenius", split=context.main, value=norm, settings=chosen),
        ]

    def _bounds(
        self,
        context: Context,
        attacked: AttackResult,
        index: WeightCurvature,
        own: Callable[[str], str],
    ) -> list[Measurement]:
        """The PAC-Bayes terms; of some layers alone they would bound nothing.

        Loss and trace are means over the examples measured; ``beta`` and ``lambda`` are the size of
        the whole training split, so that the bound does not depend on how many those are.
        """
        from robaudit import curvature

        if isinstance(self.layers, tuple):
            return []
        split = context.training
        assert split is not None
        constants = self.bound
        whole = context.splits[split].population
        size = float(whole or len(attacked.x))
        found = curvature.bound_terms(
            attacked.loss,
            index,
            attacked.x[0].numel(),
            size if constants.beta is None else constants.beta,
            constants.s0,
            size if constants.lambda_ is None else constants.lambda_,
        )
        assumed = constants.beta is None or constants.lambda_ is None
        warnings = [] if whole is not None or not assumed else [_NO_SIZE]
        used = Bound(found.beta, found.s0, found.lambda_)
        deviations = {own(name): finite(value) for name, value in found.deviations.items()}
        details = {
            **{name: asdict(getattr(found, name)) for name in ("loss", "weights", "curvature")},
            "wci_term": asdict(found.index),
            "deviations": deviations,
        }
        for term in ("loss", "weights", "curvature", "wci_term"):
            details[term]["standard_error"] = finite(details[term]["standard_error"])
        return [
            estimate(
                "pacbayes.bound",
                split,
                found.bound.value,
                found.bound.standard_error,
                unit="nats",
                n=len(attacked.x),
                details=details,
                warnings=warnings,
                settings={"pgd": asdict(self.pgd), **asdict(used)},
            )
        ]

    def _of_split(
        self,
        index: WeightCurvature,
        split: str,
        n: int,
        own: Callable[[str], str],
        precision: Asked,
    ) -> list[Measurement]:
        """WCI, its bound and the total trace of one split."""
        traces = index.traces
        described: dict[str, Any] = {"pgd": asdict(self.pgd), "estimator": traces.estimator}
        if traces.estimator != "exact":
            described["probes"] = self.probes
        if self.layers is not None:
            described["layers"] = self.layers
        warnings = [] if index.note is None else [own(index.note)]
        warnings += [own(note) for note in traces.notes]
        if traces.precision_note is not None and precision != "auto":
            warnings.append(own(traces.precision_note))
        if traces.uncovered:
            few = ", ".join(own(name) for name in traces.uncovered[:3])
            warnings.append(
                f"{len(traces.uncovered)} parameters are no weights of convolutions, linear layers "
                f"or attention projections and are not counted (--layers all counts them): {few}"
            )
        if traces.quantity == "gauss-newton" and index.note is None:
            warnings.append(f"Gauss-Newton traces, not the Hessian's: {own(traces.bent[0])}")
        details = {
            "quantity": traces.quantity,
            "estimator": traces.estimator,
            "precision": traces.precision,
            "rounding": index.rounding,
            "bias": finite(index.bias),
            "uncovered": [own(name) for name in traces.uncovered],
            "idle": [own(name) for name in traces.idle],
            "layers": [
                asdict(layer)
                | {"name": own(layer.name), "standard_error": finite(layer.standard_error)}
                for layer in index.layers
            ],
        }
        common: dict[str, Any] = {"n": n, "settings": described}
        return [
            estimate(
                "wci",
                split,
                index.value,
                index.standard_error,
                details=details,
                warnings=warnings,
                **common,
            ),
            Measurement(name="wci.bound", split=split, value=index.bound, **common),
            estimate(
                "trace.total",
                split,
                traces.total,
                traces.total_standard_error,
                details={
                    "quantity": traces.quantity,
                    "precision": traces.precision,
                    "rounding": traces.total_rounding,
                },
                **common,
            ),
        ]
