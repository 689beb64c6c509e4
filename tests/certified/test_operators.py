"""Every affine map against the matrix of its values at unit vectors, in float64."""

import math

import pytest
import torch
from torch.nn import functional as F

from robaudit.certified.operators import CommonTerm, Constant, Rearrangement, Reshape, WeightedSum
from robaudit.certified.products import Contraction, Convolution, Dense


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()


def convolution(inputs, outputs, kernel, stride, padding, dilation, groups, size):
    dims = len(size)
    weight = draw(outputs, inputs // groups, *kernel)
    bias = draw(outputs, seed=1)
    f = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    x = torch.zeros(1, inputs, *size).double()
    out = f(x, weight, bias, stride, padding, dilation, groups).shape[1:]
    sizes = (tuple(v) for v in (stride, padding, dilation))
    return Convolution(((inputs, *size),), tuple(out), weight, bias, *sizes, groups)


def transposed(inputs, outputs, kernel, stride, padding, dilation, groups, size, more):
    weight = draw(inputs, outputs // groups, *kernel)
    bias = draw(outputs, seed=1)
    f = {1: F.conv_transpose1d, 2: F.conv_transpose2d}[len(size)]
    x = torch.zeros(1, inputs, *size).double()
    out = f(x, weight, bias, stride, padding, more, groups, dilation).shape[1:]
    return Convolution(
        ((inputs, *size),), tuple(out), weight, bias, stride, padding, dilation, groups, True
    )


ONES = (1,) * 3


def pooled(x):
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


def joined(x, y):
    return torch.cat([x, y], 1)


def picked(x, at):
    return x.index_select(2, at)


def weighted(*weights, bias=None, size=None, shape=(2, 3, 2)):
    return WeightedSum((shape,) * len(weights), shape, weights, bias, size)


SQUARE = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
MAPS = {
    "convolution": convolution(2, 3, **SQUARE, size=(4, 5)),
    "stride and padding": convolution(2, 3, (3, 4), (2, 3), (1, 2), (1, 1), 1, (7, 8)),
    "stride that leaves pixels out": convolution(1, 2, (2, 2), (3, 3), (0, 0), (1, 1), 1, (7, 6)),
    "groups and dilation": convolution(4, 6, (3, 2), (2, 1), (2, 0), (2, 3), 2, (6, 5)),
    "padding beyond the kernel": convolution(1, 1, (1, 2), (1, 1), (2, 2), (1, 1), 1, (3, 3)),
    "convolution of one dimension": convolution(2, 4, (3,), (2,), (1,), (1,), 2, (7,)),
    "convolution of three dimensions": convolution(1, 2, (2, 2, 1), ONES, ONES, ONES, 1, (2, 3, 2)),
    "transposed": transposed(4, 2, (3, 2), (2, 3), (1, 0), (1, 2), 2, (3, 3), (1, 2)),
    "transposed of one dimension": transposed(2, 3, (4,), (2,), (1,), (1,), 1, (4,), (0,)),
    "dense": Dense(((5,),), (3,), draw(3, 5), draw(3, seed=1)),
    "dense of rows": Dense(((2, 5),), (2, 3), draw(3, 5), draw(3, seed=1)),
    "dense without bias": Dense(((5,),), (3,), draw(3, 5), None),
    "normalisation": weighted(
        draw(2, 1, 1), bias=draw(2, 1, 1, seed=1), size=draw(2, 1, 1, seed=1).abs() + 1
    ),
    "difference": weighted(None, draw(1).squeeze().mul(0).sub(1)),
    "sum of three": weighted(draw(2, 3, 2), None, draw(2, 1, 1), bias=draw(3, 1)),
    "contraction": Contraction(((2, 5),), (3, 2), draw(2, 3, 5), ("ab", "acb", "ca")),
    "reshape": Reshape(((2, 3),), (3, 2)),
    "average pooling": Rearrangement(((2, 5, 6),), (2, 3, 3), pooled, (), 9, 1 / 9),
    "concatenation": Rearrangement(((1, 2, 2), (2, 2, 2)), (3, 2, 2), joined),
    "selection": Rearrangement(((2, 3),), (2, 4), picked, (torch.tensor([2, 0, 2, 1]),)),
    "constant": Constant(((2, 2),), (3,), draw(3)),
}  # fmt: skip
every_map = pytest.mark.parametrize("affine", MAPS.values(), ids=MAPS)


def matrices(affine):
    """``W_i`` of every input, ``(outputs, inputs)``, and ``b``, from values at unit vectors."""
    zeros = [torch.zeros(1, *shape).double() for shape in affine.inputs]
    b = affine(*zeros)[0].flatten()
    found = []
    for i, shape in enumerate(affine.inputs):
        units = torch.eye(math.prod(shape)).double().reshape(-1, *shape)
        given = [z.expand(len(units), *z.shape[1:]) for z in zeros]
        given[i] = units
        found.append((affine(*given).flatten(1) - b).T)
    return found, b


def examples(affine, n=3):
    return [draw(n, *shape, seed=2 + i) for i, shape in enumerate(affine.inputs)]


@every_map
def test_values_are_those_of_its_matrices(affine):
    W, b = matrices(affine)
    x = examples(affine)
    wanted = sum(v.flatten(1) @ w.T for v, w in zip(x, W, strict=True)) + b
    torch.testing.assert_close(affine(*x).flatten(1), wanted)
    assert affine(*x).shape[1:] == affine.shape


@every_map
def test_constant_is_the_value_at_zero(affine):
    _, b = matrices(affine)
    constant = affine.constant()
    if constant is None:
        assert not b.any()
    else:
        assert constant.shape == affine.shape
        torch.testing.assert_close(constant.flatten(), b)


@every_map
def test_adjoint_is_the_transposed_matrix(affine):
    W, _ = matrices(affine)
    a = draw(4, *affine.shape, seed=9)
    found = affine.adjoint(a)
    assert [part.shape for part in found] == [(4, *shape) for shape in affine.inputs]
    for part, w in zip(found, W, strict=True):
        torch.testing.assert_close(part.flatten(1), a.flatten(1) @ w)


@every_map
def test_radius_is_that_of_the_absolute_matrix(affine):
    W, _ = matrices(affine)
    r = [v.abs() for v in examples(affine)]
    wanted = sum(v.flatten(1) @ w.abs().T for v, w in zip(r, W, strict=True))
    torch.testing.assert_close(affine.radius(*r).flatten(1), wanted)


def test_magnitude_of_a_log_softmax_counts_the_common_term():
    x = draw(5, 4).abs()
    found = CommonTerm(((4,),), (4,)).magnitude(x)
    assert bool((found >= x + x.logsumexp(1, keepdim=True).abs()).all())
    assert bool((found >= x + (-x).logsumexp(1, keepdim=True).abs()).all())


@every_map
def test_magnitude_is_radius_and_absolute_constant(affine):
    x = [v.abs() for v in examples(affine)]
    _, b = matrices(affine)
    found = (affine.magnitude(*x) - affine.radius(*x)).flatten(1)
    if getattr(affine, "size", None) is not None:
        assert bool((found >= b.abs() - 1e-12).all())
        torch.testing.assert_close(
            found, affine.size.expand(affine.shape).flatten().expand_as(found)
        )
    else:
        torch.testing.assert_close(found, b.abs().expand_as(found))


@every_map
def test_terms_count_the_products_of_the_fullest_row_and_column(affine):
    W, b = matrices(affine)
    rows = sum((w != 0).sum(1) for w in W) + (b != 0)
    assert affine.terms >= int(rows.max())
    assert affine.adjoint_terms >= max(int((w != 0).sum(0).max()) for w in W)


@every_map
def test_adjoint_is_differentiable_twice_over(affine):
    """The derivative of ``sum (adjoint(a) v)^2`` in ``a`` is ``2 W (a W v v)``."""
    W, _ = matrices(affine)
    a = draw(2, *affine.shape, seed=9).requires_grad_()
    v = examples(affine, 2)
    inner = sum((p * q).flatten(1).sum(1) for p, q in zip(affine.adjoint(a), v, strict=True))
    (gradient,) = torch.autograd.grad(inner.square().sum() + 0 * a.sum(), a)
    linear = sum(q.flatten(1) @ w.T for q, w in zip(v, W, strict=True))
    wanted = 2 * inner.detach()[:, None] * linear
    torch.testing.assert_close(gradient.flatten(1), wanted)


@every_map
def test_adjoint_without_gradients_keeps_no_graph(affine):
    a = draw(2, *affine.shape, seed=9)
    assert not any(part.requires_grad for part in affine.adjoint(a))


@every_map
def test_in_single_precision(affine):
    single = affine.to(torch.float32, "cpu")
    x = examples(affine)
    found = single(*(v.float() for v in x))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), affine(*x), rtol=1e-4, atol=1e-5)
    assert single.adjoint(found)[0].dtype == torch.float32
    # Parameters in another precision follow the argument's.
    assert single(*x).dtype == torch.float64
