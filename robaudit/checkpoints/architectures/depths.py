"""The blocks of ResNets and the layers of VGGs by their depth. No torch."""

from __future__ import annotations

DEPTHS = {
    10: "basic-1-1-1-1",
    18: "basic-2-2-2-2",
    34: "basic-3-4-6-3",
    50: "bottleneck-3-4-6-3",
    101: "bottleneck-3-4-23-3",
    152: "bottleneck-3-8-36-3",
    20: "basic-3-3-3",
    32: "basic-5-5-5",
    44: "basic-7-7-7",
    56: "basic-9-9-9",
    110: "basic-18-18-18",
}
"""Depth to ``KIND-BLOCKS-BLOCKS...``: four stages for large images, three for CIFAR."""

EXPANSION = {"basic": 1, "bottleneck": 4}
"""A block's outputs over its inner width."""


def stages_of(depth: int, blocks: str) -> tuple[str, list[int]]:
    """The kind of block and the number of blocks a stage; ``blocks`` wins over ``depth``.

    Raises:
        ValueError: no network has this depth, or ``blocks`` is not of this form.

    >>> stages_of(50, "")
    ('bottleneck', [3, 4, 6, 3])
    >>> stages_of(0, "basic-1-2-1")
    ('basic', [1, 2, 1])
    """
    if not blocks and depth not in DEPTHS:
        raise ValueError(f"no usual depth is {depth}; there are {', '.join(map(str, DEPTHS))}")
    kind, *counts = (blocks or DEPTHS[depth]).split("-")
    if kind not in EXPANSION or not counts or not all(c.isdecimal() and int(c) for c in counts):
        raise ValueError(f"{blocks!r} is not of the form basic-2-2-2-2 or bottleneck-3-4-6-3")
    return kind, [int(count) for count in counts]


def named_depth(blocks: str) -> dict[str, int | str]:
    """The shortest arguments of :func:`stages_of` for ``blocks``.

    >>> named_depth("basic-2-2-2-2"), named_depth("basic-2-2-1")
    ({'depth': 18}, {'blocks': 'basic-2-2-1'})
    """
    depths = {value: key for key, value in DEPTHS.items()}
    return {"depth": depths[blocks]} if blocks in depths else {"blocks": blocks}


PLANS = {
    11: "64-M-128-M-256-256-M-512-512-M-512-512-M",
    13: "64-64-M-128-128-M-256-256-M-512-512-M-512-512-M",
    16: "64-64-M-128-128-M-256-256-256-M-512-512-512-M-512-512-512-M",
    19: "64-64-M-128-128-M-256-256-256-256-M-512-512-512-512-M-512-512-512-512-M",
}
"""Depth to the widths of VGG's convolutions, with ``M`` for max pooling."""


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
