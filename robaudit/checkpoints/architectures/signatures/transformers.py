"""Vision transformers: all but the number of heads shows."""

from __future__ import annotations

from importlib.util import find_spec

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.library import library_architectures
from robaudit.checkpoints.architectures.signatures.reading import numbered, of_rank, positive

_HEAD_WIDTHS = (64, 32)
_USUAL_HEADS = (3, 6, 12, 8, 4)
_MAX_HEADS = 5


def vit(shapes: Shapes) -> list[Arguments]:
    embed, head = of_rank(shapes, "patch_embed.proj.weight", 4), of_rank(shapes, "head.weight", 2)
    positions = of_rank(shapes, "pos_embed", 3)
    hidden = of_rank(shapes, "blocks.0.mlp.fc1.weight", 2)
    if embed is None or head is None or positions is None or hidden is None:
        return []
    if find_spec("timm") is not None and any(library_architectures(shapes)):
        return []  # timm knows the heads
    width = embed[0]
    pool = "token" if "norm.weight" in shapes else "mean"
    arguments: dict[str, int | str] = {
        "width": width,
        "depth": numbered(shapes, "blocks.", ".attn.qkv.weight"),
        "hidden": hidden[0],
        "patch": embed[2],
        "positions": positions[1],
        "pool": pool if "cls_token" in shapes else "patches",
        "bias": "yes" if "blocks.0.attn.qkv.bias" in shapes else "no",
        "classes": head[0],
        "channels": embed[1],
    }
    return positive(arguments, heads=_heads(width))


def hf_vit(shapes: Shapes) -> list[Arguments]:
    embed = of_rank(shapes, "vit.embeddings.patch_embeddings.projection.weight", 4)
    positions = of_rank(shapes, "vit.embeddings.position_embeddings", 3)
    hidden = of_rank(shapes, "vit.encoder.layer.0.intermediate.dense.weight", 2)
    head = of_rank(shapes, "classifier.weight", 2)
    if embed is None or head is None or positions is None or hidden is None:
        return []
    arguments: dict[str, int | str] = {
        "width": embed[0],
        "depth": numbered(shapes, "vit.encoder.layer.", ".output.dense.weight"),
        "hidden": hidden[0],
        "patch": embed[2],
        "positions": positions[1],
        "classes": head[0],
        "channels": embed[1],
    }
    return positive(arguments, heads=_heads(embed[0]))


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


def _heads(width: int) -> list[int]:
    usual = (*(width // each for each in _HEAD_WIDTHS), *_USUAL_HEADS)
    return list(dict.fromkeys(n for n in usual if n and width % n == 0))[:_MAX_HEADS]
