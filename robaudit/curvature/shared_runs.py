"""Extreme eigenvalues and quadratures from the same products, searched fast and judged exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robaudit.curvature.krylov import Pairs, Space
from robaudit.curvature.lanczos import Tridiagonal, inner, lanczos, unit
from robaudit.curvature.products import Product
from robaudit.curvature.thick_restart import SPARE, Extremes, advanced, nearest, wanted_of, within

# Runs whose Ritz vectors the last one goes on with; further ones add little and take memory.
_JOINED = 4
# Largest relative error of a rounded product that is still used to search.
_ROUNDED = 0.05


@dataclass(frozen=True)
class Wanted:
    """Which pairs are computed, and how well.

    Attributes:
        largest, smallest: numbers of eigenvalues at both ends.
        tolerance: of the residuals, relative to the eigenvalues.
        steps: largest number of products of the run that the pairs come from.
        held: vectors in memory, at least ``largest + smallest + SPARE``.
    """

    largest: int
    smallest: int
    tolerance: float
    steps: int
    held: int

    def advance(self, space: Space, product: Product, products: int, least: int = 0) -> Extremes:
        """Until the pairs have converged, or for a number of products."""
        return advanced(
            space,
            product,
            products,
            largest=self.largest,
            smallest=self.smallest,
            tolerance=self.tolerance,
            at_least=least,
        )


@dataclass(frozen=True)
class Runs:
    """The wanted pairs, with the quadratures of all start vectors.

    Attributes:
        ends: the pairs; ``ends.products`` are those of their own run.
        space: what they come from.
        quadratures: one for each probe.
    """

    ends: Extremes
    space: Space
    quadratures: list[Tridiagonal]


def shared_runs(
    product: Product, start: Callable[[int], Tensor], probes: int, nodes: int, wanted: Wanted
) -> Runs:
    """Quadratures of ``nodes`` products from each start, and extreme pairs from all of them.

    The first start's run comes last. It has ``nodes`` products as the others; then the others'
    Ritz vectors near the wanted ends are added to it, without a product, and it goes on until the
    wanted pairs have converged. Where memory does not hold that, or there is a single start, that
    run is Lanczos with thick restarts by itself.
    """
    first = start(0)
    dim, nodes = len(first), min(nodes, len(first))
    kept = min(wanted.largest + wanted.smallest + SPARE, nodes)
    joined = min(probes - 1, _JOINED)
    more = max(0, min(wanted.steps, dim) - nodes)
    needed = nodes + 2 * joined * (kept + 1) + min(more, SPARE)
    if not joined or needed > wanted.held:
        return _apart(product, start, probes, nodes, wanted)
    quadratures, others = [], list[Pairs]()
    for probe in range(1, probes):
        space = Space(start(probe), nodes + 1)
        quadratures.append(advanced(space, product, nodes).quadrature)
        if probe <= joined:
            near = nearest(space.size, wanted.largest, wanted.smallest, kept)
            others.append(space.pairs(near))
        del space
    room = nodes + joined * (kept + 1) + more
    space = Space(first, 1 + min(room, wanted.held - joined * (kept + 1)))
    ends = wanted.advance(space, product, min(nodes, wanted.steps), nodes)
    quadratures.insert(0, ends.quadrature)
    spent = ends.products
    if spent < wanted.steps and not _good(ends, space, wanted) and space.width:
        space.join(others)
        others.clear()
        ends = wanted.advance(space, product, wanted.steps - spent)
        ends = Extremes(
            ends.eigenvalues, ends.residuals, spent + ends.products, ends.restarts, ends.quadrature
        )
    return Runs(ends, space, quadratures)


def _apart(
    product: Product, start: Callable[[int], Tensor], probes: int, nodes: int, wanted: Wanted
) -> Runs:
    """Each run by itself."""
    first = start(0)
    space = Space(first, 1 + min(wanted.held, wanted.steps, len(first)))
    least = min(nodes, wanted.steps) if probes > 1 else 0
    ends = wanted.advance(space, product, wanted.steps, least)
    # All probes need the same number of nodes; a basis that was full earlier has too few.
    usable = probes == 1 or not ends.restarts or len(ends.quadrature.weights) >= nodes
    quadratures = [ends.quadrature] if usable else []
    quadratures += [
        lanczos(product, start(probe), nodes, held=max(2, wanted.held))
        for probe in range(len(quadratures), probes)
    ]
    return Runs(ends, space, quadratures)


def judged(space: Space, product: Product, wanted: Wanted, products: int) -> tuple[Extremes, Space]:
    """The wanted pairs of a space by another product, and on from there until they converge.

    Args:
        space: in which a search with rounded products ended.
        product: the exact one, which residuals are of: at first one for each wanted pair.
        wanted: the pairs.
        products: how many more may be spent.
    """
    _, coordinates, _ = space.ritz()
    at = wanted_of(space.size, wanted.largest, wanted.smallest)
    vectors = space.vectors(coordinates[:, at])
    room = min(max(wanted.held, len(vectors) + SPARE), len(vectors) + products, space.dim)
    fresh = Space.of(vectors, product, room + len(vectors) + 1)
    ends = wanted.advance(fresh, product, products)
    total = ends.products + len(vectors)
    return Extremes(ends.eigenvalues, ends.residuals, total, ends.restarts, ends.quadrature), fresh


@dataclass(frozen=True)
class Rounding:
    """How a rounded product differs from the exact one, on one random vector.

    Attributes:
        relative: ``||e|| / ||H v||`` for the difference ``e``.
        quotient: ``|<v, e>|`` for the unit vector ``v``.
    """

    relative: float = 0.0
    quotient: float = 0.0

    @property
    def refusal(self) -> str | None:
        """Why the rounded product is not used; ``None`` where it is."""
        if self.relative <= _ROUNDED:
            return None
        return f"the products are in fp32: rounding would change them by {self.relative:.2g}"


def rounding_of(exact: Product, rounded: Product, v: Tensor) -> Rounding:
    """By one product of each."""
    v = unit(v)
    want = exact(v)
    off = rounded(v) - want
    size, length = inner(off, off) ** 0.5, inner(want, want) ** 0.5
    relative = size / length if length else 0.0 if size == 0 else torch.inf
    return Rounding(relative, abs(inner(off, v)))


def _good(ends: Extremes, space: Space, wanted: Wanted) -> bool:
    values, residuals = ends.eigenvalues, ends.residuals
    at = wanted_of(len(values), wanted.largest, wanted.smallest)
    enough = wanted.tolerance > 0 and len(values) >= wanted.largest + wanted.smallest
    return enough and within(values[at], residuals[at], space.rounding, wanted.tolerance)
