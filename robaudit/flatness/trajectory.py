"""The plane in which a training run moved most: principal components of its checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robaudit.engine import effective
from robaudit.engine.arguments import checked
from robaudit.errors import UsageError
from robaudit.flatness.families import Family, between
from robaudit.flatness.weights import Weights

_FEWEST = 3
# Squared, relative to the first: what float32 weights leave of a component that is not there.
_NOTHING = 1e-10


@dataclass(frozen=True)
class Trajectory:
    """The plane of a run's checkpoints, and where they are in it.

    Attributes:
        family: the networks of the plane, by their coordinates.
        places: ``(m, 2)`` float64: the checkpoints' projections on the plane, in units of the
            weights' Euclidean norm; the last is at the origin.
        shares: of the sum of squared distances from the last checkpoint, by component.
        off_plane: ``(m,)`` how far each checkpoint is from the plane, as a share of its distance
            from the last; 0 for the last.
    """

    family: Family
    places: Tensor
    shares: tuple[float, float]
    off_plane: Tensor


@checked
def trajectory(models: Sequence[nn.Module]) -> Trajectory:
    """The plane through the last checkpoint that is nearest to all of them.

    Its directions are the first two right singular vectors of the matrix with the rows
    ``w_i - w_m``: principal components, not centred, so that the plane goes through the last
    network. ``w`` are all parameters as they are in a pass, with neither filters nor layers
    normalised. Every network of the plane is a combination of the checkpoints whose shares add up
    to one; buffers, such as the running statistics of batch norm, are combined with the same
    shares.

    Args:
        models: three checkpoints of one architecture or more, in the order of training.

    Returns:
        The plane, the checkpoints' places in it, and how much of the path it holds.

    Raises:
        UsageError: fewer than three, different architectures, or all on one line.

    Source: Li et al., "Visualizing the loss landscape of neural nets", NeurIPS 2018, sec. 7.2.

    >>> path = trajectory([nn.Linear(2, 1) for _ in range(3)])
    >>> path.places.shape, round(sum(path.shares), 6)
    (torch.Size([3, 2]), 1.0)
    """
    if len(models) < _FEWEST:
        raise UsageError(
            f"a trajectory takes three checkpoints or more, not {len(models)}",
            "Two give the line between them: leave --trajectory out.",
        )
    plain = [effective(model) for model in models]
    mixed = between(plain[-1], *plain[:-1])
    products = _products([_parameters(model) for model in plain])
    squares, vectors = torch.linalg.eigh(products)
    squares, vectors = squares.flip(0).clamp_min(0), vectors.flip(1)
    if not bool(squares[1] > _NOTHING * squares[0]):
        raise UsageError(
            "the checkpoints lie on one line in weight space, or are the same",
            "Two of them without --trajectory give the line between them.",
        )
    lengths = squares[:2].sqrt()
    # The first checkpoint to the left of the last, the farthest from the line above it.
    signs = torch.stack([-vectors[0, 0].sign(), vectors[vectors[:, 1].abs().argmax(), 1].sign()])
    signs[signs == 0] = 1
    vectors = vectors[:, :2] * signs
    shares = vectors / lengths  # of the differences, for a step of length one

    def at(place: Sequence[float]) -> Weights:
        point = torch.tensor(list(place), dtype=torch.float64)
        return mixed((shares @ point).tolist())

    places = torch.cat([vectors * lengths, torch.zeros(1, 2, dtype=torch.float64)])
    whole = torch.cat([products.diagonal(), torch.zeros(1, dtype=torch.float64)])
    inside = places.square().sum(1)
    off = ((whole - inside).clamp_min(0) / whole.clamp_min(torch.finfo(whole.dtype).tiny)).sqrt()
    first, second = (squares[:2] / squares.sum()).tolist()
    return Trajectory(at, places, (first, second), off)


def places_along(values: Tensor, points: int, margin: float = 0.2) -> Tensor:
    """Places over the range of some values and beyond both its ends.

    Args:
        values: the values.
        points: how many places.
        margin: how far beyond each end, in parts of the range.

    Returns:
        ``(points,)``, at equal distances.

    >>> places_along(torch.tensor([0.0, -10.0]), 3).tolist()
    [-12.0, -5.0, 2.0]
    """
    low, high = float(values.min()), float(values.max())
    beyond = margin * (high - low)
    return torch.linspace(low - beyond, high + beyond, points, dtype=torch.float64)


def _parameters(model: nn.Module) -> Weights:
    named = model.named_parameters()
    return {name: one.detach() for name, one in named if one.is_floating_point()}


def _products(weights: Sequence[Weights]) -> Tensor:
    """``(m - 1, m - 1)``, float64: scalar products of the differences from the last.

    On the CPU: float64 solvers of CUDA are not available everywhere.
    """
    *others, last = weights
    total = torch.zeros(len(others), len(others), dtype=torch.float64, device="cpu")
    for name, end in last.items():
        rows = torch.stack(
            [(one[name].to(end).double() - end.double()).flatten() for one in others]
        )
        total += (rows @ rows.T).cpu()
    return total
