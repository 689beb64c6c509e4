"""The two small families for 8x8 digits."""

from __future__ import annotations

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.signatures.reading import positive


def digits_resnet(shapes: Shapes) -> list[Arguments]:
    stem, head = shapes.get("conv.weight", ()), shapes.get("head.weight", ())
    if len(stem) != 4 or len(head) != 2:
        return []
    return positive({"classes": head[0], "channels": stem[1], "width": stem[0]})


def digits_vit(shapes: Shapes) -> list[Arguments]:
    embed, head = shapes.get("embed.weight", ()), shapes.get("head.weight", ())
    positions = shapes.get("positions", ())
    if len(embed) != 4 or len(head) != 2 or len(positions) != 3:
        return []
    depth = sum(key.startswith("blocks.") and key.endswith(".fc1.weight") for key in shapes)
    return positive(
        {
            "classes": head[0],
            "channels": embed[1],
            "width": embed[0],
            "depth": depth,
            "patch": embed[2],
            "tokens": positions[1],
        }
    )
