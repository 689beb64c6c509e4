"""Measurements from samples: one place for how an accuracy or a mean gets its error bar.

A probe imports this module, so it imports torch and numpy nowhere but in its functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robaudit.schema import Measurement

if TYPE_CHECKING:
    from torch import Tensor

    from robaudit.attacks import AttackResult
    from robaudit.audit.context import Context, Radius

LEVEL = 0.95
_CURVE = {
    "order": "ascending",
    "attacked": "by PGD and CW every example, from where the radius before ended; by ensembles "
    "what the radius before left standing",
    "last": "the run at the threat model's radius, less what smaller radii broke",
}


def accuracy(name: str, split: str, right: Tensor, **fields: Any) -> Measurement:
    """The share of ``True`` in ``(n,)`` bool, with its Clopper-Pearson interval."""
    from robaudit.statistics import clopper_pearson, standard_error_of_proportion

    n, count = len(right), int(right.sum())
    return Measurement(
        name=name,
        split=split,
        value=count / n,
        unit="fraction",
        n=n,
        interval=clopper_pearson(count, n, LEVEL),
        standard_error=standard_error_of_proportion(count, n),
        **fields,
    )


def loss(name: str, split: str, losses: Tensor, **fields: Any) -> Measurement:
    """The mean of per-example losses in nats, with its standard error."""
    return average(name, split, losses, unit="nats", **fields)


def average(name: str, split: str, values: Tensor, **fields: Any) -> Measurement:
    """The mean of per-example values ``(n,)``, with its standard error."""
    from robaudit.statistics import mean

    found = mean(values.double().numpy())
    return estimate(name, split, found.value, found.standard_error, n=found.n, **fields)


def estimate(
    name: str,
    split: str,
    value: float,
    standard_error: float | None,
    *,
    degrees: int | None = None,
    **fields: Any,
) -> Measurement:
    """A number with its standard error, and its interval where there is one.

    The interval is normal, or Student's t where the error is known from few draws only.
    """
    from robaudit.statistics import from_standard_error

    error = standard_error if standard_error is not None and math.isfinite(standard_error) else None
    return Measurement(
        name=name,
        split=split,
        value=value,
        standard_error=error,
        interval=None if error is None else from_standard_error(value, error, degrees, LEVEL),
        **fields,
    )


def error_gap(test: Tensor, train: Tensor, **fields: Any) -> Measurement:
    """Robust error on test minus on train, from ``(n,)`` bool of robust examples."""
    from robaudit.statistics import newcombe

    broken, broken_train = int((~test).sum()), int((~train).sum())
    a, b = broken / len(test), broken_train / len(train)
    return Measurement(
        name="gap.error",
        split="gap",
        value=a - b,
        unit="fraction",
        n=len(test),
        interval=newcombe(broken, len(test), broken_train, len(train), LEVEL),
        standard_error=math.sqrt(a * (1 - a) / len(test) + b * (1 - b) / len(train)),
        **fields,
    )


def loss_gap(test: Tensor, train: Tensor, **fields: Any) -> Measurement:
    """Robust loss on test minus on train; the two samples are independent."""
    from robaudit.statistics import mean

    a, b = mean(test.double().numpy()), mean(train.double().numpy())
    known = a.standard_error is not None and b.standard_error is not None
    error = math.hypot(a.standard_error or 0, b.standard_error or 0) if known else None
    return estimate("gap.loss", "gap", a.value - b.value, error, n=len(test), unit="nats", **fields)


def finite(value: float) -> float | None:
    """The value, or ``None`` (null in JSON) if it is not finite."""
    return value if math.isfinite(value) else None


def passes(attacked: AttackResult) -> dict[str, Any]:
    """What an attack cost, in images."""
    return {"forwards": attacked.forwards, "backwards": attacked.backwards}


def curve(context: Context, radii: Sequence[Radius], with_loss: bool = True) -> dict[str, Any]:
    """Details: accuracy and interval within each radius; empty for fewer than two radii."""
    from robaudit.statistics import clopper_pearson, clustered_accuracy

    if len(radii) < 2:
        return {}
    rows = []
    for radius in radii:
        n, count = len(radius.robust), int(radius.robust.sum())
        groups = context.groups(context.main, n)
        interval = (
            clopper_pearson(count, n, LEVEL)
            if groups is None
            else clustered_accuracy(radius.robust.numpy(), groups.numpy(), LEVEL)
        )
        row = {"eps": radius.eps, "value": count / n, "low": interval.low, "high": interval.high}
        if with_loss and radius.loss is not None:
            row["loss"] = float(radius.loss.double().mean())
        rows.append(row)
    return {"curve": rows, "curve_settings": dict(_CURVE)}
