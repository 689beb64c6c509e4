"""How residual networks are named by depth: the kind of block and how many there are a stage."""

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


def stages(depth: int, blocks: str) -> tuple[str, list[int]]:
    """The kind of block and the number of blocks a stage; ``blocks`` wins over ``depth``.

    Raises:
        ValueError: no network has this depth, or ``blocks`` is not of this form.

    >>> stages(50, "")
    ('bottleneck', [3, 4, 6, 3])
    >>> stages(0, "basic-1-2-1")
    ('basic', [1, 2, 1])
    """
    if not blocks and depth not in DEPTHS:
        raise ValueError(f"no usual depth is {depth}; there are {', '.join(map(str, DEPTHS))}")
    kind, *counts = (blocks or DEPTHS[depth]).split("-")
    if kind not in EXPANSION or not counts or not all(c.isdecimal() and int(c) for c in counts):
        raise ValueError(f"{blocks!r} is not of the form basic-2-2-2-2 or bottleneck-3-4-6-3")
    return kind, [int(count) for count in counts]


def named_depth(blocks: str) -> dict[str, int | str]:
    """The shortest arguments of :func:`stages` that give ``blocks``.

    >>> named_depth("basic-2-2-2-2"), named_depth("basic-2-2-1")
    ({'depth': 18}, {'blocks': 'basic-2-2-1'})
    """
    depths = {value: key for key, value in DEPTHS.items()}
    return {"depth": depths[blocks]} if blocks in depths else {"blocks": blocks}
