"""WCI over checkpoints, beside the robust gaps and the parts that it is made of."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.report.curve import Curve, Point, Quantity, missing, points_of, unlike
from robaudit.report.curve_axis import Axis, shown_place
from robaudit.report.details import extra
from robaudit.report.differences import architectures_differ, differing
from robaudit.report.naming import SUBJECT
from robaudit.report.numbers import number
from robaudit.schema import Measurement, Report

_GAP = "WCI and the robust generalisation gap"
_PARTS = "What WCI is made of"
QUANTITIES = (
    Quantity("wci_test", "wci", "test", "WCI,\ntest", _GAP, course="WCI, test"),
    Quantity("wci_train", "wci", "train", "WCI,\ntrain", _GAP),
    Quantity("wci_bound_test", "wci.bound", "test", exact=True),
    Quantity("wci_bound_train", "wci.bound", "train", exact=True),
    Quantity("loss_robust_test", "loss.robust", "test", "Robust loss,\ntest", _GAP),
    Quantity("loss_robust_train", "loss.robust", "train", "Robust loss,\ntrain", _GAP),
    Quantity("accuracy_pgd_test", "accuracy.pgd", "test"),
    Quantity("accuracy_pgd_train", "accuracy.pgd", "train"),
    Quantity("gap_loss", "gap.loss", "gap", "Loss gap,\nnats", _GAP, course="Robust loss gap"),
    Quantity(
        "gap_error", "gap.error", "gap", "Error gap,\npoints", _GAP, 100, course="Robust error gap"
    ),
    Quantity(
        "weights_squared",
        "weights.frobenius",
        None,
        "Weights,\nsum ||W_k||²",
        _PARTS,
        course="Weights",
        squared=True,
        exact=True,
    ),
    Quantity(
        "trace_test",
        "trace.total",
        "test",
        "Trace, test,\nsum Tr(H_k)",
        _PARTS,
        course="Trace, test",
    ),
    Quantity("trace_train", "trace.total", "train", "Trace, train,\nsum Tr(H_k)", _PARTS),
)
_SUBJECT = (*SUBJECT, "data", "norm", "eps", "n_test", "n_train")
_MORE_THAN_WCI = ("flatness", "hessian")


def is_wci_curve(reports: Sequence[Report]) -> bool:
    """Whether these are several reports of WCI and of nothing that needs columns besides."""
    return len(reports) > 1 and all(
        report.get("wci") is not None
        and not any(m.name.startswith(_MORE_THAN_WCI) for m in report.measurements)
        for report in reports
    )


def wci_curve(checkpoints: Sequence[Report | str]) -> Curve:
    """The curve through several checkpoints.

    Args:
        checkpoints: in the order given: a report, or the source of a checkpoint that could not be
            audited and leaves a gap.

    Raises:
        UsageError: no checkpoints.

    Source: Xu & Zhang, arXiv 2410.07719v1, Figures 1 and 4.
    """
    axis, points, notes = points_of(checkpoints, QUANTITIES)
    reports = [point.report for point in points if point.report]
    notes += _factors(axis, points)
    notes += unlike(points, {"wci": "WCI was measured", "loss.robust": "PGD ran"})
    if architectures_differ(reports):
        notes.append(
            "Architectures differ: WCI, weight norms and traces compare within one architecture."
        )
    notes += [*_gauss_newton(points), *missing(points)]
    return Curve(axis, points, QUANTITIES, _SUBJECT, tuple(notes))


def _factors(axis: Axis, points: Sequence[Point]) -> list[str]:
    """By which factors the ends of the curve differ (the WCI paper's Eq. 6 and Figure 4)."""
    split = "test" if any("wci_test" in point.numbers for point in points) else "train"
    keys = (f"wci_{split}", "weights_squared", f"trace_{split}")
    whole = [point for point in points if point.numbers.keys() >= set(keys)]
    reports = [point.report for point in whole if point.report]
    if axis.by == "order" or len(whole) < 2 or differing(reports) or architectures_differ(reports):
        return []
    ends = [[point.numbers[key].value for key in keys] for point in (whole[0], whole[-1])]
    if min(*ends[0], *ends[1]) <= 0:
        return []
    wci, squares, trace = (after / before for before, after in zip(*ends, strict=True))
    first, last = shown_place(whole[0].place), shown_place(whole[-1].place)
    return [
        f"From {axis.name} {first} to {last}, on {split} examples: WCI times {number(wci, 3)}, the "
        f"weight norm times {number(squares**0.5, 3)}, the root of the trace times "
        f"{number(trace**0.5, 3)}."
    ]


def _gauss_newton(points: Sequence[Point]) -> list[str]:
    kinds = {
        point.name: {extra(m, "quantity") for m in _measured(point.report)}
        for point in points
        if point.report
    }
    every = set().union(*kinds.values())
    if every == {"gauss-newton"}:
        return ["The traces are of the Gauss-Newton matrix, not of the Hessian."]
    if len(every) < 2:
        return []
    listed = ", ".join(name for name, found in kinds.items() if "gauss-newton" in found)
    return [
        f"The traces of {listed} are of the Gauss-Newton matrix, the others of the "
        "Hessian: they do not compare."
    ]


def _measured(report: Report) -> list[Measurement]:
    return [m for m in report.measurements if m.name == "wci" and m.status == "ok"]
