"""VGG's plans by depth, and how a plan and a classifier are written; no torch."""

from __future__ import annotations

PLANS = {
    11: "64-M-128-M-256-256-M-512-512-M-512-512-M",
    13: "64-64-M-128-128-M-256-256-M-512-512-M-512-512-M",
    16: "64-64-M-128-128-M-256-256-256-M-512-512-512-M-512-512-512-M",
    19: "64-64-M-128-128-M-256-256-256-256-M-512-512-512-512-M-512-512-512-512-M",
}


def plan_of(depth: int, plan: str) -> list[str]:
    """Widths and ``M`` for pooling, in order; ``plan`` wins over ``depth``.

    Raises:
        ValueError: there is no such depth, or the plan is not of this form.
    """
    if not plan and depth not in PLANS:
        raise ValueError(f"VGG has depths {', '.join(map(str, PLANS))}, not {depth}")
    items = (plan or PLANS[depth]).split("-")
    if not all(item == "M" or (item.isdecimal() and int(item)) for item in items):
        raise ValueError(f"{plan!r} is not of the form 64-M-128-M")
    return items


def named_plan(plan: str) -> dict[str, int | str]:
    """The shortest arguments of :func:`plan_of` that give ``plan``.

    >>> named_plan("64-M-128")
    {'plan': '64-M-128'}
    """
    depths = {value: key for key, value in PLANS.items()}
    return {"depth": depths[plan]} if plan in depths else {"plan": plan}


def head_layers(text: str) -> list[tuple[int, int]]:
    """Index and width of a classifier's layers, width 0 for the last, which gives the logits.

    >>> head_layers("0:512-3:512-6")
    [(0, 512), (3, 512), (6, 0)]
    """
    pairs = [part.partition(":") for part in text.split("-")] if text else []
    return [(int(index), int(width or 0)) for index, _, width in pairs]
