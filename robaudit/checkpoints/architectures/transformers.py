"""Vision transformers: one encoder, with the keys of timm, of Hugging Face and of the samples.

Source: A. Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021 (pre-norm encoder).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter

import torch
from torch import Tensor, nn

from robaudit.checkpoints.architectures.layers import one_of, part_of, place

# Where each part of an encoder block is, in the order of the state dict. Queries, keys and values
# are one linear layer or three.
_TIMM = {
    "norm1": "norm1", "qkv": "attn.qkv", "out": "attn.proj",
    "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2",
}  # fmt: skip
_DIGITS = {**_TIMM, "qkv": "attention.qkv", "out": "attention.proj", "fc1": "fc1", "fc2": "fc2"}
_HUGGING_FACE = {
    "q": "attention.attention.query",
    "k": "attention.attention.key",
    "v": "attention.attention.value",
    "out": "attention.output.dense",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
}


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer network, each behind a norm and around a residual.

    Args:
        names: of its parts, by what they are.
        width: of the tokens.
        hidden: width within the two-layer network.
        bias: of queries, keys and values.
        epsilon: of the norms.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        width: int,
        heads: int,
        hidden: int,
        *,
        bias: bool = True,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} is not a multiple of {heads} heads")
        self.heads, self.names = heads, names
        self.act = nn.GELU()
        sizes = {"out": (width, width), "fc1": (width, hidden), "fc2": (hidden, width)}
        for part, name in names.items():
            if part.startswith("norm"):
                place(self, name, nn.LayerNorm(width, epsilon))
            elif part in sizes:
                place(self, name, nn.Linear(*sizes[part]))
            else:
                place(self, name, nn.Linear(width, len(part) * width, bias))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._part("out", self._attention(self._part("norm1", x)))
        inner = self.act(self._part("fc1", self._part("norm2", x)))
        return x + self._part("fc2", inner)

    def _part(self, part: str, x: Tensor) -> Tensor:
        made: Tensor = part_of(self, self.names[part])(x)
        return made

    def _attention(self, x: Tensor) -> Tensor:
        """``softmax(Q K^T / sqrt(d)) V`` in plain operations: fused kernels have no second
        derivative.
        """
        projected = [self._part(part, x) for part in ("qkv", "q", "k", "v") if part in self.names]
        parts = torch.cat(projected, -1) if len(projected) > 1 else projected[0]
        split: Tensor = parts.unflatten(-1, (3, self.heads, -1))  # type: ignore[no-untyped-call]
        query, key, value = split.permute(2, 0, 3, 1, 4)
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        mixed: Tensor = torch.softmax(scores, dim=-1) @ value
        return mixed.transpose(1, 2).flatten(2)


class VisionTransformer(nn.Module):
    """Patch embedding, positions, encoder blocks, norm, pooling, linear head.

    Args:
        names: of ``embed``, ``token`` (none without a class token), ``positions``, ``blocks``,
            ``norm`` and ``head``.
        pool: what enters the head: ``token``, the class token; ``mean`` of the other tokens, which
            the norm follows; ``tokens``, the mean of all of them, behind the norm.
    """

    def __init__(
        self,
        names: Mapping[str, str],
        embed: nn.Conv2d,
        positions: Tensor,
        blocks: Sequence[nn.Module],
        *,
        classes: int,
        pool: str,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        self.names, self.pool = names, pool
        width = embed.out_channels
        if "token" in names:
            place(self, names["token"], nn.Parameter(torch.zeros(1, 1, width)))
        place(self, names["positions"], nn.Parameter(positions))
        place(self, names["embed"], embed)
        place(self, names["blocks"], nn.Sequential(*blocks))
        place(self, names["norm"], nn.LayerNorm(width, epsilon))
        place(self, names["head"], nn.Linear(width, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, classes)`` of images ``(n, channels, h, w)``."""
        embed, blocks, norm, head = (
            part_of(self, self.names[part]) for part in ("embed", "blocks", "norm", "head")
        )
        tokens = embed(x).flatten(2).transpose(1, 2)
        if "token" in self.names:
            token = attrgetter(self.names["token"])(self)
            tokens = torch.cat([token.expand(len(x), -1, -1), tokens], 1)
        # Perturbed networks run on plain tensors, which get_parameter refuses.
        tokens = blocks(tokens + attrgetter(self.names["positions"])(self))
        if self.pool == "mean":
            pooled = norm(tokens[:, int("token" in self.names) :].mean(1))
        else:
            tokens = norm(tokens)
            pooled = tokens[:, 0] if self.pool == "token" else tokens.mean(1)
        logits: Tensor = head(pooled)
        return logits


def vit(
    width: int = 384,
    depth: int = 12,
    *,
    heads: int = 6,
    hidden: int = 1536,
    patch: int = 4,
    positions: int = 65,
    pool: str = "token",
    bias: str = "yes",
    classes: int = 10,
    channels: int = 3,
) -> nn.Module:
    """A vision transformer of any size with timm's keys, as trained on small images.

    Args:
        hidden: width within the blocks' two-layer networks.
        positions: how many there are, the class token's included.
        pool: what enters the head: ``token`` for the class token, ``mean`` for the mean of the
            patches beside one, ``patches`` for that mean where there is none.
        bias: ``yes`` or ``no``, of queries, keys and values.
    """
    one_of(("token", "mean", "patches"), pool=pool)
    one_of(("yes", "no"), bias=bias)
    names = {
        **({} if pool == "patches" else {"token": "cls_token"}),
        "positions": "pos_embed",
        "embed": "patch_embed.proj",
        "blocks": "blocks",
        "norm": "norm" if pool == "token" else "fc_norm",
        "head": "head",
    }
    embed, at = nn.Conv2d(channels, width, patch, patch), 0.02 * torch.randn(1, positions, width)
    blocks = [
        EncoderBlock(_TIMM, width, heads, hidden, bias=bias == "yes", epsilon=1e-6)
        for _ in range(depth)
    ]
    pool = "token" if pool == "token" else "mean"
    return VisionTransformer(names, embed, at, blocks, classes=classes, pool=pool, epsilon=1e-6)


def hf_vit(
    width: int = 768,
    depth: int = 12,
    *,
    heads: int = 12,
    hidden: int = 3072,
    patch: int = 16,
    positions: int = 197,
    classes: int = 10,
    channels: int = 3,
) -> nn.Module:
    """A vision transformer with the keys of Hugging Face's ``ViTForImageClassification``.

    Args:
        hidden: width within the layers' two-layer networks.
        positions: how many there are, the class token's included.
    """
    names = {
        "token": "vit.embeddings.cls_token",
        "positions": "vit.embeddings.position_embeddings",
        "embed": "vit.embeddings.patch_embeddings.projection",
        "blocks": "vit.encoder.layer",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    blocks = [
        EncoderBlock(_HUGGING_FACE, width, heads, hidden, epsilon=1e-12) for _ in range(depth)
    ]
    at, embed = 0.02 * torch.randn(1, positions, width), nn.Conv2d(channels, width, patch, patch)
    return VisionTransformer(names, embed, at, blocks, classes=classes, pool="token", epsilon=1e-12)


def digits_vit(
    classes: int = 10,
    channels: int = 1,
    width: int = 40,
    depth: int = 2,
    patch: int = 2,
    tokens: int = 16,
) -> nn.Module:
    """A vision transformer for 8x8 images with four heads, of about ``8 * depth * width**2``
    parameters: the smooth sample (GELU, softmax attention).

    Its loss is curved in every layer's weights, so that the Hessian is not the Gauss-Newton matrix.
    In place of a class token, the mean over tokens enters the head. It takes images
    ``(n, channels, h, w)`` in ``[0, 1]`` that make ``tokens = (h w) / patch**2`` patches, and needs
    no input normalisation.

    Raises:
        ValueError: ``width`` is no multiple of four.

    >>> sum(p.numel() for p in digits_vit().parameters())
    27810
    """
    parts = ("embed", "positions", "blocks", "norm", "head")
    embed = nn.Conv2d(channels, width, patch, stride=patch)
    positions = 0.02 * torch.randn(1, tokens, width)
    blocks = [EncoderBlock(_DIGITS, width, 4, 2 * width) for _ in range(depth)]
    names = {part: part for part in parts}
    return VisionTransformer(names, embed, positions, blocks, classes=classes, pool="tokens")
