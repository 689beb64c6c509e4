"""Measurements of PGD examples say in which arithmetic these were searched."""

from __future__ import annotations

from collections.abc import Sequence

from robaudit.audit.context import Context
from robaudit.audit.input_space import ADVERSARIAL
from robaudit.audit.probe import Probe
from robaudit.engine.precision import coarsest
from robaudit.measures import find, known
from robaudit.schema import Measurement


def with_arithmetic(
    probe: Probe, context: Context, found: Sequence[Measurement]
) -> list[Measurement]:
    """A probe's measurements, those of PGD examples with ``details.searched_in``.

    What a measurement says of its own searches is kept.
    """
    others = sum(len(examples) for examples in context.splits.values())
    n = len(context.splits[context.main])
    pgds = probe.shared(n, others - n)
    named = []
    for m in found:
        precisions = [
            made.searched
            for split in (context.splits if m.split not in context.splits else [m.split])
            for pgd in pgds
            if (made := context.made(split, pgd)) is not None
        ]
        if m.status == "ok" and precisions and _of_adversarial(m.name):
            details = {"searched_in": coarsest(precisions), **m.details}
            m = m.model_copy(update={"details": details})
        named.append(m)
    return named


def _of_adversarial(name: str) -> bool:
    """Whether a measure is of adversarial examples, not of clean ones beside them."""
    family, _, rest = name.partition(".")
    twin = f"{family}.{ADVERSARIAL}{rest}"
    return find(name).basis != "clean" and all(row.name != twin for row in known())
