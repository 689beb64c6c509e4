"""A report in sentences: one line for each headline measurement.

A line states what was measured, with its error bar, and nothing else. An accuracy under attack is
an upper bound on robust accuracy, whatever the attack; a flatness found by a search is a lower
bound on the worst case. A line that judges names the comparison.
"""

from __future__ import annotations

from robaudit.report.class_tables import worst_class_line
from robaudit.report.details import (
    attacked,
    corruption_rows,
    extra,
    extra_number,
    layer_rows,
    trace_symbol,
)
from robaudit.report.headline import ends
from robaudit.report.numbers import number, percent, shown
from robaudit.report.text import plain
from robaudit.report.union_table import union_line
from robaudit.report.words import attack, label
from robaudit.schema import Measurement, Report


def verdicts(report: Report) -> list[str]:
    """The lines, in reading order; plain text in which nothing is escaped.

    Raises:
        DataError: the layer table of ``wci`` cannot be read.
    """
    return [
        *_accuracy(report),
        *union_line(report),
        *worst_class_line(report),
        *_broken(report),
        *_corruptions(report),
        *_gap(report),
        *_wci(report),
        *_bounds(report),
        *_flatness(report),
        *_hessian(report),
    ]


def _ok(report: Report, name: str, split: str | None = None) -> Measurement | None:
    measurement = report.get(name, split)
    return measurement if measurement is not None and measurement.status == "ok" else None


def _value(measurement: Measurement) -> float:
    assert measurement.value is not None
    return measurement.value


def _on(measurement: Measurement) -> str:
    return f" on {measurement.n} examples" if measurement.n is not None else ""


def _accuracy(report: Report) -> list[str]:
    """What attacks left, then clean accuracy."""
    clean = _ok(report, "accuracy.clean")
    of_clean = [f"Clean accuracy {shown(clean)}{_on(clean)}."] if clean else []
    return [*_attacked(report), *_between(report), *of_clean]


def _attacked(report: Report) -> list[str]:
    lines: list[str] = []
    measured = attacked(report)
    if not measured:
        return lines
    smallest = measured[0]
    if smallest.name == "accuracy.transfer":
        line = f"Accuracy {shown(smallest)}{_on(smallest)}, with images made elsewhere"
    else:
        line = f"Robust accuracy {shown(smallest)}{_on(smallest)} under {attack(smallest)}"
    line += ", the smallest measured: an upper bound" if len(measured) > 1 else ": an upper bound"
    reference = report.get("accuracy.autoattack")
    if reference is None or reference.status == "skipped":
        line += "; AutoAttack was not run"
    elif reference.status == "failed":
        line += "; AutoAttack failed"
    lines.append(f"{line}.")
    pgd = next((m for m in measured if m.name == "accuracy.pgd"), None)
    if pgd and pgd.n == smallest.n and _value(pgd) > _value(smallest):
        points = 100 * (_value(pgd) - _value(smallest))
        lines.append(
            f"On the same examples, {attack(pgd)} alone would overstate it by {points:.1f} points."
        )
    return lines + _stages(reference)


def _between(report: Report) -> list[str]:
    """Both ends: what is certified, and what no attack broke."""
    both = ends(report)
    if both is None:
        return []
    n, low = both.n, percent(both.low)
    if both.exact:
        line = (
            f"Robust accuracy is exactly {low} of these {n} images: they are certified, and all "
            "others broken or misclassified."
        )
    else:
        between = f"between {low} (certified) and {percent(both.high)} ({both.by})"
        line = f"Robust accuracy lies {between} of these {n} images; {percent(both.open)} open."
    if any(m.doubts for m in attacked(report)):
        line += (
            " Doubts about the attacks move neither end: what they broke is broken, and what is "
            "certified is robust."
        )
    return [line]


def _stages(ensemble: Measurement | None) -> list[str]:
    stages = ensemble.details.get("attacks") if ensemble else None
    if not isinstance(stages, dict) or not stages:
        return []
    if not all(isinstance(left, int | float) for left in stages.values()):
        return []
    listed = ", ".join(f"{plain(name)} {percent(left)}" for name, left in stages.items())
    return [f"Left standing by AutoAttack, attack after attack: {listed}."]


def _broken(report: Report) -> list[str]:
    measured, classes = attacked(report), report.data.classes
    if not measured:
        return []
    smallest = measured[0]
    bound = smallest.interval.high if smallest.interval else _value(smallest)
    if classes and bound < 1 / classes:
        return [
            f"The model is broken at this radius: at most {percent(bound)} of examples resist "
            f"(the upper end of the interval), fewer than the {percent(1 / classes)} that guessing "
            f"among {classes} classes gets right."
        ]
    if _value(smallest) == 0:
        return ["The model is broken at this radius: no example that was tried resists."]
    return []


def _corruptions(report: Report) -> list[str]:
    found, rows = _ok(report, "accuracy.corruptions"), corruption_rows(report)
    if not found or not rows:
        return []
    lowest, name, severity = min(
        (one.accuracy, row.name, one.severity) for row in rows for one in row.severities
    )
    return [
        f"{label(found)}: {shown(found)} on {found.n} images; lowest {percent(lowest)}, under "
        f"{plain(name)} at severity {severity}."
    ]


def _gap(report: Report) -> list[str]:
    loss = _ok(report, "gap.loss", "gap")
    if loss is None:
        return []
    size = str(shown(loss.model_copy(update={"value": abs(_value(loss))}), prefer_error=True))
    if _value(loss) < 0:
        line = f"Training robust loss exceeds test robust loss by {size}"
    else:
        line = f"Test robust loss exceeds training robust loss by {size}"
    low, high = _range(loss)
    if low is None or high is None:
        return [f"{line}; without an error bar, this may be chance."]
    if low > 0:
        return [
            f"{line}, more than sampling explains: robustness does not carry over in full from "
            "training to new examples. A large gap is the mark of robust overfitting."
        ]
    if high < 0:
        return [f"{line}: no robust generalisation gap."]
    return [
        f"{line}, which sampling explains: no robust generalisation gap shows on so few examples."
    ]


def _range(measurement: Measurement) -> tuple[float | None, float | None]:
    if measurement.interval:
        return measurement.interval.low, measurement.interval.high
    if measurement.standard_error is None:
        return None, None
    half = 1.96 * measurement.standard_error  # the usual 95 % under normality
    return _value(measurement) - half, _value(measurement) + half


def _wci(report: Report) -> list[str]:
    wci = _ok(report, "wci")
    if wci is None:
        return []
    trace = trace_symbol(report)
    line = f"WCI {shown(wci, prefer_error=True)}: the sum over layers of ||W_k||_F sqrt({trace}). "
    line += "Smaller is flatter; compare it between models of one architecture."
    rows = layer_rows(report)
    if rows:
        top = max(rows, key=lambda row: row.contribution)
        line += f" Largest layer: {plain(top.name)}, {percent(top.share or 0)} of the whole."
    lines = [line]
    if trace == "Tr(G_k)":
        lines.append(
            "The layer traces are of the Gauss-Newton matrix G_k, not of the Hessian: "
            "the network is not piecewise linear, and the two differ."
        )
    uncovered = extra(wci, "uncovered")
    if isinstance(uncovered, list) and uncovered:
        names = ", ".join(plain(name) for name in uncovered[:4])
        more = f" and {len(uncovered) - 4} more" if len(uncovered) > 4 else ""
        lines.append(f"WCI leaves out {names}{more}: no convolutions, linear layers or attention.")
    return lines


def _bounds(report: Report) -> list[str]:
    bound = _ok(report, "pacbayes.bound")
    if bound is None:
        return []
    terms = [
        f"{name} {number(term['value'], 3)}"
        for name in ("loss", "weights", "curvature")
        if isinstance(term := bound.details.get(name), dict)
        and isinstance(term.get("value"), int | float)
    ]
    listed = f" ({', '.join(terms)})" if terms else ""
    return [
        f"The PAC-Bayes terms{listed} compare models measured with the same constants; "
        "they are not a certificate."
    ]


def _flatness(report: Report) -> list[str]:
    lines = []
    average, worst = _ok(report, "flatness.average"), _ok(report, "flatness.worst")
    if average:
        size, verb = _change(average, "raise", "lower")
        line = f"Random weight changes{_xi(average)} {verb} the robust loss by {size} on average"
        reference = extra_number(average, "reference")
        lines.append(line + (f", from {number(reference, 3)}." if reference is not None else "."))
    if worst:
        size, verb = _change(worst, "raises", "lowers")
        lines.append(
            f"The worst weight change found{_xi(worst)} {verb} the robust loss by {size}; "
            "a worse one may exist."
        )
    return lines


def _change(measurement: Measurement, up: str, down: str) -> tuple[str, str]:
    """The size of a change, and the verb for its sign."""
    falls = _value(measurement) < 0
    interval = measurement.interval
    if falls and interval:
        interval = interval.model_copy(update={"low": -interval.high, "high": -interval.low})
    update = {"value": abs(_value(measurement)), "interval": interval}
    size = shown(measurement.model_copy(update=update), prefer_error=True)
    return str(size), down if falls else up


def _xi(measurement: Measurement) -> str:
    xi = extra_number(measurement, "xi")
    return "" if xi is None else f" within {100 * xi:.4g} % of each tensor's norm"


def _hessian(report: Report) -> list[str]:
    largest, relative = (_ok(report, f"hessian.{name}") for name in ("largest", "relative_largest"))
    if largest is None:
        return []
    gauss_newton = str(extra(largest, "operator")) == "gauss-newton"
    kind = "Gauss-Newton curvature" if gauss_newton else "curvature"
    line = f"Along the sharpest direction the {kind} is {shown(largest, prefer_error=True)}"
    residuals = extra(largest, "residuals")
    if isinstance(residuals, list) and residuals and isinstance(residuals[0], int | float):
        line += f" (residual {number(residuals[0], 2)})"
    line += "; it changes when layers are rescaled, although the model does not. The relative one"
    if relative:
        line += f", {shown(relative, prefer_error=True)}, is invariant: compare models by it."
    else:
        line += " is invariant, and was not measured."
    return [line, *_second_opinion(largest, _ok(report, "hessian.trace"))]


def _second_opinion(largest: Measurement, trace: Measurement | None) -> list[str]:
    """PyHessian's eigenvalue and trace, where it was run."""
    theirs = largest.details.get("pyhessian")
    eigenvalues = theirs.get("eigenvalues") if isinstance(theirs, dict) else None
    if not isinstance(eigenvalues, list) or not eigenvalues:
        return []
    line = f"PyHessian's largest eigenvalue is {number(eigenvalues[0], 4)}, without a residual"
    spread = trace.details.get("pyhessian") if trace else None
    if trace and isinstance(spread, dict) and isinstance(spread.get("trace"), int | float):
        line += (
            f"; its trace is {number(spread['trace'], 3)} after {spread.get('probes')} probes, "
            f"{'the exact one' if extra(trace, 'estimator') == 'exact' else 'ours'} "
            f"{number(_value(trace), 4)}"
        )
    return [f"{line}."]
