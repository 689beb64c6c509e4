"""How each family is told by a few of its keys and shapes; torch-free, so that a file can be judged
without importing it.

A signature reads the factory's arguments off a state dict's shapes, or gives ``None`` when the keys
are not its family's. It looks at tell-tale keys alone; :meth:`Architecture.recognise` checks the
guess against every key and shape.
"""

from __future__ import annotations

from robaudit.checkpoints.architectures.architecture import Shapes


def digits_resnet(shapes: Shapes) -> dict[str, int] | None:
    stem, head = shapes.get("conv.weight", ()), shapes.get("head.weight", ())
    if len(stem) != 4 or len(head) != 2:
        return None
    return {"classes": head[0], "channels": stem[1], "width": stem[0]}


def digits_vit(shapes: Shapes) -> dict[str, int] | None:
    embed, head = shapes.get("embed.weight", ()), shapes.get("head.weight", ())
    positions = shapes.get("positions", ())
    if len(embed) != 4 or len(head) != 2 or len(positions) != 3:
        return None
    depth = sum(key.startswith("blocks.") and key.endswith(".fc1.weight") for key in shapes)
    return {
        "classes": head[0],
        "channels": embed[1],
        "width": embed[0],
        "depth": depth,
        "patch": embed[2],
        "tokens": positions[1],
    }
