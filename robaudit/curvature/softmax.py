"""Factors of the curvature of cross-entropy in the logits."""

from __future__ import annotations

import torch
from torch import Tensor

from robaudit.engine import generator


def logit_curvature_factor(logits: Tensor) -> Tensor:
    """Columns ``c_j`` with ``sum_j c_j c_j^T = diag(p) - p p^T``, shape ``(k - 1, n, k)``.

    ``p = softmax(z)``; the matrix is the Hessian of cross-entropy in the logits, for any
    label. With the tails ``q_j = sum_{i >= j} p_i``, the closed-form Cholesky factor of a
    multinomial covariance is
    ``c_j = sqrt(p_j q_{j+1} / q_j) (e_j - sum_{i > j} p_i e_i / q_{j+1})``; one column less
    than the symmetric choice ``sqrt(p_c) (e_c - p)``.

    Source: Tanabe & Sagae, "An exact Cholesky decomposition and the generalized inverse of the
    variance-covariance matrix of the multinomial distribution", JRSS B 54, 1992.

    >>> z = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    >>> c, p = logit_curvature_factor(z)[:, 0], z.softmax(1)[0]
    >>> torch.allclose(c.T @ c, p.diag() - p.outer(p))
    True
    """
    p = logits.softmax(1)
    tails = p.flip(1).cumsum(1).flip(1)
    q, q_next = tails[:, :-1], tails[:, 1:]
    tiny = torch.finfo(p.dtype).tiny
    scale = (p[:, :-1] * q_next / q.clamp_min(tiny)).sqrt()
    k = p.shape[1]
    ratio = p[:, None, :] / q_next[:, :, None].clamp_min(tiny)
    below = torch.ones(k - 1, k, dtype=torch.bool, device=p.device).triu(1)
    columns = -ratio * below
    columns.diagonal(dim1=1, dim2=2).add_(1)
    return (scale[:, :, None] * columns).transpose(0, 1)


def mixed_columns(logits: Tensor, index: Tensor, probes: int, seed: int) -> Tensor:
    """``m_q = sum_c z_qc sqrt(p_c) (e_c - p) / sqrt(probes)``, ``z`` Rademacher.

    Shape ``(probes, n, k)``. ``sum_c p_c (e_c - p) (e_c - p)^T = diag(p) - p p^T``, so that
    ``E sum_q m_q m_q^T = diag(p) - p p^T``: one backward pass per probe instead of one per class.
    The signs of an example are determined by the seed and its ``index``.
    """
    k = logits.shape[1]
    signs = torch.stack(
        [
            torch.randint(2, (probes, k), generator=generator(seed, "mixed-class", example))
            for example in index.tolist()
        ]
    )
    z = (signs * 2 - 1).to(logits)
    p = logits.softmax(1)[:, None]
    root = p.sqrt() * z
    mixed = root - p * root.sum(2, keepdim=True)
    columns: Tensor = mixed.transpose(0, 1) / probes**0.5
    return columns
