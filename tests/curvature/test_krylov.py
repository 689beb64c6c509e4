"""Spaces that several runs share: what is known of them without a product is what products give."""

import numpy as np
import pytest
import torch
from support.networks import piecewise_linear, smooth, warmed

import robaudit as ra
from robaudit.checkpoints import samples_dir
from robaudit.curvature.krylov import Space
from robaudit.curvature.lanczos import lanczos, orthogonalised, unit
from robaudit.curvature.products import hessian_product
from robaudit.curvature.shared_runs import Wanted, shared_runs
from robaudit.curvature.thick_restart import SPARE, advanced, extremes
from robaudit.engine import frozen

torch.manual_seed(4)
NETWORKS = {**piecewise_linear(), **smooth()}
DIAGONAL = torch.cat([torch.linspace(-0.9, 0.9, 396), torch.tensor([1.125, 1.25, 5, -1])]).double()


def start(seed, dim=400):
    signs = torch.randint(2, (dim,), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return signs.double()


def product(v):
    return DIAGONAL * v


def grown(seed, nodes, most=60):
    space = Space(start(seed), most)
    advanced(space, product, nodes)
    return space


def off(space):
    """How far the relation ``H Q = Q T + F C`` and the orthonormality are from holding."""
    rows = space._rows[: space.size + space.width].numpy()
    Q, F = rows[: space.size], rows[space.size :]
    relation = DIAGONAL.numpy()[:, None] * Q.T - Q.T @ space.T - F.T @ space.C
    return max(np.abs(relation).max(), np.abs(rows @ rows.T - np.eye(len(rows))).max())


def test_the_relation_survives_joining_growing_and_restarting():
    space = grown(0, 12)
    space.join([grown(seed, 12).pairs([0, 1, 9, 10, 11]) for seed in (1, 2)])
    assert (space.width, space.size > 14) == (3, True)
    assert off(space) < 1e-13 * space.growth
    for toward in np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]:
        space.expand(product, toward)
    assert off(space) < 1e-13 * space.growth
    space.restart([0, 1, 2, *range(space.size - 3, space.size)])
    space.expand(product, np.array([0.0, -1.0, 0.0]))
    assert (space.width, space.size) == (3, 7)
    assert off(space) < 1e-13 * space.growth


def test_residuals_are_those_of_products():
    space = grown(0, 10)
    space.join([grown(1, 10).pairs([0, 8, 9])])
    values, coordinates, residuals = space.ritz()
    for vector, value, residual in zip(space.vectors(coordinates), values, residuals, strict=True):
        explicit = float((product(vector) - value * vector).norm())
        assert explicit == pytest.approx(residual, abs=1e-13 * space.growth)


def test_vectors_that_the_space_has_are_not_joined():
    space = grown(0, 60, 70)
    before = space.size, space.width
    space.join([grown(1, 60, 70).pairs([0, 59])])  # both have converged in both
    assert (space.size, space.width) == before
    assert space.growth == 1


def test_a_space_of_given_vectors_has_their_products():
    vectors = torch.linalg.qr(torch.randn(400, 4, dtype=torch.float64))[0].T.contiguous()
    space = Space.of(vectors, product, 20)
    assert (space.size, space.width) == (4, 4)
    assert off(space) < 1e-13
    eigenvectors = torch.eye(400, dtype=torch.float64)[:3].contiguous()
    assert Space.of(eigenvectors, product, 20).width == 0


def test_an_exhausted_run_can_be_joined():
    few = torch.zeros(400, dtype=torch.float64)
    few[:3] = 1
    space = Space(few, 8)
    advanced(space, product, 8)
    assert (space.size, space.width) == (3, 0)
    other = grown(0, 10)
    other.join([space.pairs([0, 1, 2])])
    assert (other.size, other.width) == (13, 1)
    assert off(other) < 1e-13 * other.growth


@pytest.mark.parametrize("dim", [700, 1024, 200_000])
def test_long_vectors_stay_orthogonal_in_float32(dim):
    """To rounding of the vectors themselves; a plain float32 sum would be off by far more."""
    draws = torch.Generator().manual_seed(0)
    rows = torch.linalg.qr(torch.randn(dim, 12, generator=draws).double())[0].T.float().contiguous()
    vector = torch.randn(dim, generator=draws) + 3 * dim**0.5 * rows[3] + 1
    residue, along = orthogonalised(vector, rows)
    assert float((rows.double() @ unit(residue).double()).abs().max()) < 1e-7
    want = rows.double() @ vector.double()
    np.testing.assert_allclose(along, want.numpy(), rtol=1e-5, atol=1e-5 * dim**0.5)


def products_before(matrix, starts, nodes, steps, **ask):
    """One run until the pairs have converged, and each other start's for its quadrature."""
    spent = 0

    def counted(v):
        nonlocal spent
        spent += 1
        return matrix(v)

    extremes(counted, starts(0), steps, at_least=nodes, **ask)
    for probe in (1, 2):
        lanczos(counted, starts(probe), nodes)
    return spent


@pytest.mark.parametrize(
    ("name", "nodes"),
    [(name, nodes) for name in NETWORKS for nodes in (8, 20)] + [("robust.pt", 20)],
)
def test_sharing_never_takes_more_products_than_separate_runs(name, nodes):
    torch.manual_seed(1)
    if name in NETWORKS:
        model = warmed(NETWORKS[name], (2, 6, 6))
        x, y = torch.rand(6, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 2])
    else:
        model, digits = ra.load(samples_dir() / name, device="cpu"), ra.load_examples("digits")
        x, y = digits.x[:4], digits.y[:4]
    like = next(model.parameters())
    dim = sum(p.numel() for p in model.parameters())
    ask = {"largest": 3, "smallest": 1, "tolerance": 1e-3}
    with frozen(model):
        matrix, spent = hessian_product(model, x, y), 0

        def counted(v):
            nonlocal spent
            spent += 1
            return matrix(v)

        def starts(probe):
            return start(probe, dim).to(like)

        runs = shared_runs(counted, starts, 3, nodes, Wanted(**ask, steps=80, held=1000))
        shared, spent = spent, 0
        assert shared <= products_before(matrix, starts, nodes, 80, **ask)
        values, coordinates, _ = runs.space.ritz()
        at = [0, *range(len(values) - 3, len(values))]
        vectors = runs.space.vectors(coordinates[:, at])
        for vector, value in zip(vectors, values[at], strict=True):
            explicit = float((matrix(vector) - value * vector).double().norm())
            rounding = runs.space.rounding
            assert explicit <= 1e-3 * abs(value) + rounding


def test_quadratures_are_those_of_single_runs():
    runs = shared_runs(product, start, 3, 10, Wanted(2, 1, 1e-9, 60, 200))
    assert len(runs.quadratures) == 3
    for probe, found in enumerate(runs.quadratures):
        want = lanczos(product, start(probe), 10)
        np.testing.assert_allclose(found.eigenvalues, want.eigenvalues, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.weights, want.weights, rtol=1e-6, atol=1e-12)
    assert runs.ends.products > 10
    np.testing.assert_allclose(runs.ends.eigenvalues[[0, -2, -1]], [-1, 1.25, 5], rtol=1e-9)


@pytest.mark.parametrize("held", [3 + SPARE, 30, 62])
def test_less_memory_gives_the_same_eigenvalues(held):
    """By restarts, in a run of its own or one that others joined."""
    runs = shared_runs(product, start, 3, 10, Wanted(2, 1, 1e-9, 2000, held))
    assert len(runs.space._rows) <= held + 1
    np.testing.assert_allclose(runs.ends.eigenvalues[[0, -2, -1]], [-1, 1.25, 5], rtol=1e-9)
    assert all(len(one.weights) >= 10 for one in runs.quadratures)
