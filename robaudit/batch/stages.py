"""A plan cut into stages that are finished one by one, so that a kill costs the one at hand."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from robaudit.audit.plan import Plan

_ATTACKS = ("pgd", "cw", "transfer", "replay", "square", "fast", "autoattack", "distance")
_COMMON = ("n", "radii")


def stages(plan: Plan) -> list[tuple[str, Plan]]:
    """The plan's parts by name: all attacks, whose pieces are kept singly, then each other probe.

    Adversarial examples that several stages need are pieces of an attack, kept by the first.

    >>> from robaudit.audit import preset
    >>> [name for name, _ in stages(preset("quick"))]
    ['attacks', 'wci', 'top_layer', 'average', 'worst']
    """
    probes = [field.name for field in fields(plan) if field.name not in _COMMON]
    asked = [name for name in probes if getattr(plan, name) is not None]
    groups = {"attacks": [name for name in asked if name in _ATTACKS]}
    groups |= {name: [name] for name in asked if name not in _ATTACKS}

    def part(kept: list[str]) -> Plan:
        out: dict[str, Any] = {name: None for name in probes if name not in kept}
        return replace(plan, **out)

    return [(stage, part(kept)) for stage, kept in groups.items()]
