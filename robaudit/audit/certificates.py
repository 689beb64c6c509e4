"""Certificates and attacks of one audit, held against each other example by example."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from robaudit.attacks.verification import verify
from robaudit.audit.context import Context
from robaudit.measures import find
from robaudit.schema import Measurement

_LISTED = 5
_WORDS = {"clean": "the clean image", "distance": "FAB"}


def broken_by(context: Context) -> dict[str, Tensor]:
    """By attack, ``(n,)`` bool: the audited examples that it broke inside the threat model.

    What it broke within a smaller radius belongs to them.
    """
    found = {name: counts for name, (_, counts) in context.broken.items()}
    found |= {name: found[name] | broke for name, broke in context.nearer.items()}
    distances = context.outcomes.get(f"{context.main}.distance")
    if distances is not None:
        found["distance"] = distances <= context.threat.eps
    return found


def standing(context: Context) -> Tensor:
    """``(n,)`` bool: classified correctly, and broken by no attack so far."""
    left = context.outcomes[f"{context.main}.accuracy.clean"].clone()
    for broke in broken_by(context).values():
        left &= ~broke
    return left


def held_against_attacks(
    context: Context, measurements: Sequence[Measurement]
) -> list[Measurement]:
    """The measurements, those by proof held against what every attack of this audit found.

    One certificate that an attack breaks shows that none can be trusted: measurements by proof then
    failed. Else their details say how many examples no attack broke (``unbroken``) and how many of
    these are not certified (``open``).
    """
    certified = context.outcomes.get(f"{context.main}.accuracy.certified")
    if certified is None:
        return list(measurements)
    index = context.index(context.main, len(certified))
    reason = contradiction(
        {name: index[rows].tolist() for name, rows in _contradicted(context, certified).items()}
    )
    left = standing(context)
    counts = {"unbroken": int(left.sum()), "open": int((left & ~certified).sum())}
    return [
        _judged(m, reason, counts) if m.status == "ok" and find(m.name).basis == "proof" else m
        for m in measurements
    ]


def contradiction(examples: Mapping[str, Iterable[int]]) -> str | None:
    """What is said where attacks break certified examples; ``None`` where they break none.

    Args:
        examples: by attack, the places of those examples in their data set.
    """
    said = []
    for name, broken in examples.items():
        places = sorted(broken)
        if places:
            more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
            attack = _WORDS.get(name) or find(f"accuracy.{name}").attack_in({}, sentence=True)
            said.append(f"{', '.join(map(str, places[:_LISTED]))}{more} by {attack}")
    if not said:
        return None
    return (
        f"certified examples are broken: {'; '.join(said)}; no certificate of this network can be "
        "trusted. This is an error of robaudit: please report it"
    )


def _contradicted(context: Context, certified: Tensor) -> dict[str, Tensor]:
    """By attack, the rows that are certified and broken, or certified beyond where they break."""
    examples = context.splits[context.main]
    clean = context.outcomes[f"{context.main}.accuracy.clean"]
    found = {"clean": certified & ~clean}
    found |= {name: certified & broke for name, broke in broken_by(context).items()}
    radii = context.outcomes.get(f"{context.main}.certified_radius")
    if radii is not None:
        found["clean"] |= (radii > 0) & ~clean
        for name, (images, counts) in context.broken.items():
            rows = torch.nonzero(counts & (radii > 0))[:, 0]
            if len(rows):
                moved = verify(
                    context.own, examples.x[rows], images[rows], examples.y[rows], context.threat
                )
                found[name][rows] |= moved.breaks & (moved.distance < radii[rows])
        distances = context.outcomes.get(f"{context.main}.distance")
        if distances is not None:
            found["distance"] |= distances < radii
    return {name: rows for name, rows in found.items() if bool(rows.any())}


def _judged(found: Measurement, reason: str | None, counts: Mapping[str, int]) -> Measurement:
    if reason is None:
        return found.model_copy(update={"details": {**found.details, **counts}})
    lost = {"value": None, "interval": None, "standard_error": None}
    return found.model_copy(update={"status": "failed", "reason": reason, **lost})
