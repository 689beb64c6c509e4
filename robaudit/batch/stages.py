"""A plan cut into stages that are finished one by one, so that a kill costs the current one."""

from __future__ import annotations

from dataclasses import replace

from robaudit.audit.plan import Plan
from robaudit.audit.probe import Attack, Probe


def stages(plan: Plan) -> list[tuple[str, Plan]]:
    """The plan's parts by name: all attacks, whose pieces are kept singly, then each other probe.

    Adversarial examples that several stages need are pieces of an attack, kept by the first.

    >>> from robaudit.audit import preset
    >>> [name for name, _ in stages(preset("quick"))]
    ['attacks', 'wci', 'top_layer', 'average', 'worst']
    """
    groups: dict[str, tuple[Probe, ...]] = {
        "attacks": tuple(probe for probe in plan.probes if isinstance(probe, Attack))
    }
    groups |= {probe.name: (probe,) for probe in plan.probes if not isinstance(probe, Attack)}
    return [(stage, replace(plan, probes=probes)) for stage, probes in groups.items()]
