"""What an audit does: a plan of probes with their settings, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from robaudit.errors import UsageError
from robaudit.flatness.protocols import STUTZ_STEP_OVER_EPS, Protocol, reference_restarts
from robaudit.flatness.weights import check_radius

PresetName = Literal["quick", "standard", "paper"]
Layers = tuple[str, ...] | Literal["all"] | None


@dataclass(frozen=True)
class Pgd:
    """A PGD: ``step_over_eps`` is in units of eps, so that one setting fits every threat model."""

    steps: int = 20
    restarts: int = 1
    step_over_eps: float = 0.25
    loss: Literal["ce", "margin"] = "ce"
    last_iterate: bool = False

    def __post_init__(self) -> None:
        if self.steps < 1 or self.restarts < 1:
            raise UsageError("an attack needs at least one step and one restart")
        if not 0 < self.step_over_eps < float("inf"):
            raise UsageError(
                f"the step size must be a positive number, not {self.step_over_eps:g} eps"
            )


@dataclass(frozen=True)
class AutoAttack:
    """AutoAttack, by the reference library or by robaudit's own code.

    Attributes:
        batch_size: of the reference library, whose verdicts depend on it.
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    batch_size: int = 250
    engine: Literal["reference", "native"] = "reference"


@dataclass(frozen=True)
class Fast:
    """APGD-CE, then targeted APGD on the classes that are nearest; nothing to set."""


@dataclass(frozen=True)
class Replay:
    """Adversarial examples from a file, judged by the audited network."""

    file: str


@dataclass(frozen=True)
class Square:
    """Square, which asks the network for logits and nothing else."""

    queries: int = 5000


@dataclass(frozen=True)
class Distance:
    """The distance to the nearest misclassified point that FAB finds."""

    restarts: int = 1


@dataclass(frozen=True)
class Transfer:
    """PGD examples of a surrogate network, judged on the audited one."""

    pgd: Pgd
    surrogate: str


@dataclass(frozen=True)
class Bound:
    """Constants of the PAC-Bayes terms; ``None`` for those of :func:`robaudit.curvature.pac_bayes`.

    ``lambda_`` is the WCI paper's.
    """

    beta: float | None = None
    s0: float | None = None
    lambda_: float | None = None


@dataclass(frozen=True)
class Wci:
    """Layer traces, the Weight-Curvature Index and the PAC-Bayes terms, at PGD examples.

    Attributes:
        layers: which weights, by the network's own names; ``None`` for convolutions, linear layers
            and attention projections, ``"all"`` for every parameter.
        memory: bytes beside the network; ``None`` for what is fast.
    """

    pgd: Pgd
    estimator: Literal["auto", "exact", "gauss-newton", "hessian"] = "auto"
    probes: int = 1
    layers: Layers = None
    memory: int | None = None
    bound: Bound = Bound()


@dataclass(frozen=True)
class TopLayer:
    """Trace of a training loss's Hessian in the last layer, at PGD examples."""

    pgd: Pgd
    objective: Literal["at", "trades", "alp", "mart"] = "at"
    penalty: float | None = None


@dataclass(frozen=True)
class Hessian:
    """Both ends of the spectrum, density and trace, at the first ``n`` PGD examples.

    ``engine="pyhessian"`` has that library measure what it can as well, as a second opinion.

    Attributes:
        layers: the parameters it is restricted to; ``None`` and ``"all"`` for all.
        memory: bytes for Lanczos vectors.
        spread_probes: probes for the standard deviation of each layer's eigenvalues; 0 for none.
    """

    pgd: Pgd
    n: int | None = 256
    top: int = 5
    probes: int = 5
    steps: int = 80
    density_steps: int = 40
    tolerance: float = 1e-3
    operator: Literal["hessian", "gauss-newton"] = "hessian"
    layers: Layers = None
    memory: int | None = None
    spread_probes: int = 0
    engine: Literal["robaudit", "pyhessian"] = "robaudit"

    def __post_init__(self) -> None:
        if self.engine == "pyhessian" and (
            self.operator != "hessian" or self.layers not in (None, "all")
        ):
            raise UsageError(
                "PyHessian measures the Hessian of the whole network and nothing else",
                "Leave --layers and --operator out, or --engine pyhessian.",
            )


@dataclass(frozen=True)
class Average:
    """Average-case flatness.

    Attributes:
        perturbations: draws, or the most of them where ``tolerance`` may stop earlier.
        radii: smaller than ``xi``, measured as well.
        clean: the flatness of the clean loss, too.
    """

    pgd: Pgd
    xi: float = 0.5
    perturbations: int = 10
    ball: Literal["sphere", "ball"] = "sphere"
    tolerance: float | None = None
    radii: tuple[float, ...] = ()
    protocol: Protocol = "default"
    clean: bool = False

    def __post_init__(self) -> None:
        for xi in (*self.radii, self.xi):
            check_radius(xi, "average", 0.5)
        if self.tolerance is not None and not 0 < self.tolerance < float("inf"):
            raise UsageError(f"the tolerance must be a positive number, not {self.tolerance:g}")
        reference_restarts(self.protocol, self.pgd.restarts)


@dataclass(frozen=True)
class Worst:
    """Worst-case flatness; ``radii`` and ``clean`` as in :class:`Average`."""

    pgd: Pgd
    xi: float = 0.00075
    passes: int = 20
    restarts: int = 10
    radii: tuple[float, ...] = ()
    protocol: Protocol = "default"
    clean: bool = False

    def __post_init__(self) -> None:
        for xi in (*self.radii, self.xi):
            check_radius(xi, "worst-case", 0.00075)
        reference_restarts(self.protocol, self.pgd.restarts)


@dataclass(frozen=True)
class Plan:
    """The probes of one audit; ``None`` leaves a probe out.

    Attributes:
        n: examples of each split, as far as the data has them.
        radii: smaller than the threat model's, for a curve of accuracies.
    """

    n: int = 1000
    pgd: Pgd | None = None
    cw: Pgd | None = None
    fast: Fast | None = None
    autoattack: AutoAttack | None = None
    transfer: Transfer | None = None
    replay: Replay | None = None
    square: Square | None = None
    distance: Distance | None = None
    radii: tuple[float, ...] = ()
    wci: Wci | None = None
    top_layer: TopLayer | None = None
    hessian: Hessian | None = None
    average: Average | None = None
    worst: Worst | None = None

    @property
    def attacks(self) -> bool:
        """Whether anything but clean images is measured."""
        return self != Plan(n=self.n)


# WCI paper, sec. 3: PGD-10 of step eps/4 (2/255 at 8/255).
_PGD10 = Pgd(steps=10)
_PGD20 = Pgd(steps=20)
# Flatness paper, sec. 4: PGD-20 of step 0.007 at eps 8/255; RLoss with ten restarts.
_STUTZ = Pgd(steps=20, step_over_eps=STUTZ_STEP_OVER_EPS)

PRESETS: dict[str, Plan] = {
    "quick": Plan(
        n=256,
        pgd=_PGD10,
        wci=Wci(_PGD10),
        top_layer=TopLayer(_PGD10),
        average=Average(_PGD10, perturbations=5),
        worst=Worst(_PGD10, passes=10, restarts=2),
    ),
    "standard": Plan(
        n=1000,
        pgd=_PGD20,
        cw=replace(_PGD20, loss="margin"),
        autoattack=AutoAttack(),
        wci=Wci(_PGD10),
        top_layer=TopLayer(_PGD10),
        hessian=Hessian(_PGD10),
        average=Average(_PGD20),
        worst=Worst(_PGD20, restarts=4),
    ),
    "paper": Plan(
        n=1000,
        pgd=replace(_STUTZ, restarts=10),
        cw=replace(_PGD20, loss="margin"),
        autoattack=AutoAttack(),
        wci=Wci(_PGD10),
        top_layer=TopLayer(_PGD10),
        hessian=Hessian(_PGD10, n=None, probes=10),
        average=Average(_STUTZ),
        worst=Worst(_STUTZ),
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
