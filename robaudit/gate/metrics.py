"""What a gate can have a rule on: accuracies, decided while attacking, and measured numbers."""

from __future__ import annotations

from dataclasses import dataclass

# Attacks from the cheapest to the dearest, with about the passes that an example costs which they
# do not break; a backward pass counts as two.
STAGES = {"clean": 1, "pgd": 60, "cw": 60, "fast": 1000, "square": 5000, "autoattack": 11_700}


@dataclass(frozen=True)
class Metric:
    """A number that rules can be stated on.

    Attributes:
        low, high: the values that it can have.
        chain: for an accuracy that is decided example by example, the attacks that an example has
            to withstand: every adversarial example found is proof, whichever attack found it.
        probe: for a number that an audit measures, the part of its plan that does; ``clean`` is in
            every plan.
        exact: has no error bar because it needs none.
    """

    low: float | None = 0.0
    high: float | None = None
    chain: tuple[str, ...] = ()
    probe: str = ""
    exact: bool = False


METRICS: dict[str, Metric] = {
    "accuracy.clean": Metric(high=1.0, chain=("clean",)),
    "accuracy.pgd": Metric(high=1.0, chain=("clean", "pgd")),
    "accuracy.cw": Metric(high=1.0, chain=("clean", "cw")),
    "accuracy.fast": Metric(high=1.0, chain=("clean", "pgd", "fast")),
    "accuracy.square": Metric(high=1.0, chain=("clean", "square")),
    "accuracy.autoattack": Metric(high=1.0, chain=("clean", "pgd", "fast", "autoattack")),
    "distance.median": Metric(probe="distance"),
    "loss.clean": Metric(probe="clean"),
    "loss.robust": Metric(probe="pgd"),
    "gap.error": Metric(low=-1.0, high=1.0, probe="pgd"),
    "gap.loss": Metric(low=None, probe="pgd"),
    "wci": Metric(probe="wci"),
    "trace.total": Metric(low=None, probe="wci"),
    "weights.frobenius": Metric(probe="wci", exact=True),
    "pacbayes.bound": Metric(low=None, probe="wci"),
    "trh.top_layer": Metric(low=None, probe="top_layer"),
    "hessian.trace": Metric(low=None, probe="hessian"),
    "flatness.average": Metric(low=None, probe="average"),
    "flatness.worst": Metric(low=None, probe="worst"),
}

NO_ERROR_BAR = frozenset(
    ["wci.bound", "hessian.largest", "hessian.smallest", "hessian.relative_largest"]
)
