"""Vision transformers: all but the number of heads shows."""

from __future__ import annotations

from importlib.util import find_spec

from robaudit.checkpoints.architectures.architecture import Arguments, Shapes
from robaudit.checkpoints.architectures.library import library_architectures
from robaudit.checkpoints.architectures.signatures.reading import numbered, positive, read

_HEAD_WIDTHS = (64, 32)
_USUAL_HEADS = (3, 6, 12, 8, 4)
_MAX_HEADS = 5
# In a label these come behind what tells the networks of a family apart.
_LAST = ("classes", "channels")


def vit(shapes: Shapes) -> list[Arguments]:
    found = read(
        shapes,
        width=("patch_embed.proj.weight", 4, 0),
        hidden=("blocks.0.mlp.fc1.weight", 2, 0),
        patch=("patch_embed.proj.weight", 4, 2),
        positions=("pos_embed", 3, 1),
        classes=("head.weight", 2, 0),
        channels=("patch_embed.proj.weight", 4, 1),
    )
    if find_spec("timm") is not None and found and any(library_architectures(shapes)):
        return []  # timm knows the heads
    pool = "token" if "norm.weight" in shapes else "mean"
    return _with_heads(
        found,
        depth=numbered(shapes, "blocks.", ".attn.qkv.weight"),
        pool=pool if "cls_token" in shapes else "patches",
        bias="yes" if "blocks.0.attn.qkv.bias" in shapes else "no",
    )


def hf_vit(shapes: Shapes) -> list[Arguments]:
    embed, layer = "vit.embeddings.patch_embeddings.projection.weight", "vit.encoder.layer."
    found = read(
        shapes,
        width=(embed, 4, 0),
        hidden=(f"{layer}0.intermediate.dense.weight", 2, 0),
        patch=(embed, 4, 2),
        positions=("vit.embeddings.position_embeddings", 3, 1),
        classes=("classifier.weight", 2, 0),
        channels=(embed, 4, 1),
    )
    return _with_heads(found, depth=numbered(shapes, layer, ".output.dense.weight"))


def digits_vit(shapes: Shapes) -> list[Arguments]:
    found = read(
        shapes,
        classes=("head.weight", 2, 0),
        channels=("embed.weight", 4, 1),
        width=("embed.weight", 4, 0),
        patch=("embed.weight", 4, 2),
        tokens=("positions", 3, 1),
    )
    if not found:
        return []
    patch, tokens = found.pop("patch"), found.pop("tokens")
    depth = numbered(shapes, "blocks.", ".fc1.weight")
    return positive({**found, "depth": depth, "patch": patch, "tokens": tokens})


def _with_heads(found: dict[str, int], **more: int | str) -> list[Arguments]:
    """A guess for each plausible number of heads."""
    if not found:
        return []
    width = found.pop("width")
    usual = (*(width // each for each in _HEAD_WIDTHS), *_USUAL_HEADS)
    heads = list(dict.fromkeys(n for n in usual if n and width % n == 0))[:_MAX_HEADS]
    first, last = {"width": width, "depth": more["depth"]}, {key: found.pop(key) for key in _LAST}
    return positive({**first, **found, **more, **last}, heads=heads)
