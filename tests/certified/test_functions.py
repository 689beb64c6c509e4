"""Single functions of an image, read as graphs, against torch in float64."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.certified.graph import graph_of

SHAPE = (4, 6, 7)


def draw(x, *shape):
    """Odd multiples of 1/64 between -1 and 1, which a program computes without rounding."""
    return ((74 * torch.arange(math.prod(shape)) % 128 - 63).to(x) / 64).reshape(shape)


MASK = torch.sin(torch.arange(42.0) ** 2).reshape(6, 7) > 0
COLUMNS = torch.tensor([2, 0, 2])

AFFINE = {
    "add and multiply": lambda x: (2 * x - 0.5) / 0.25 + torch.ones(6, 1) - x / draw(x, 7),
    "subtract from": lambda x: 1 - x,
    "negate": lambda x: -x,
    "rsub with a factor": lambda x: torch.rsub(x, 1, alpha=3),
    "add with a factor": lambda x: torch.add(x, x.flip(1), alpha=-2),
    "expand by adding": lambda x: x[:, :1] + x,
    "expand by a constant": lambda x: x[:, :1] * draw(x, 3, 1, 1),
    "constant with a row an image": lambda x: torch.cat([x, x.new_ones(len(x), 1, 6, 7)], 1),
    "constant of the batch": lambda x: x + torch.arange(7.0).expand(len(x), 4, 6, 7),
    "matrix": lambda x: x @ draw(x, 5, 7).T,
    "vector": lambda x: x @ draw(x, 7),
    "matrix from the left": lambda x: draw(x, 2, 6) @ x,
    "vector from the left": lambda x: draw(x, 6) @ x,
    "batched matrices": lambda x: x @ draw(x, 4, 7, 2),
    "batched matrices from the left": lambda x: draw(x, 4, 3, 6) @ x,
    "one matrix for all": lambda x: torch.matmul(x[:, :1], draw(x, 4, 7, 2)),
    "matrix with a dimension of one": lambda x: x @ draw(x, 1, 1, 7, 2),
    "a matrix an image": lambda x: torch.bmm(x[:, 0], draw(x, 1, 7, 2).expand(len(x), 7, 2)),
    "addmm": lambda x: torch.addmm(draw(x, 5), x.flatten(1), draw(x, 168, 5), beta=2, alpha=0.5),
    "einsum": lambda x: torch.einsum("nchw,ck->nhwk", x, draw(x, 4, 5)),
    "einsum with two constants": lambda x: torch.einsum(
        "nchw,ck,hj->nkj", x, draw(x, 4, 5), draw(x, 6, 3)
    ),
    "einsum of one operand": lambda x: torch.einsum("nchw->nwc", x),
    "implicit einsum": lambda x: torch.einsum("abcd,eb", x, draw(x, 3, 4)),
    "tensordot with a batch": lambda x: F.linear(x.permute(0, 2, 3, 1), draw(x, 5, 4)),
    "where": lambda x: torch.where(MASK, x, 0.5) + torch.where(MASK, torch.tensor(1.0), x.flip(1)),
    "where with infinities": lambda x: torch.where(MASK, x, torch.where(MASK, torch.inf, 0.0)),
    "masked fill": lambda x: x.masked_fill(MASK, 0.25),
    "assignment": lambda x: assigned(x),
    "bilinear": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "bilinear to a size": lambda x: F.interpolate(x, (4, 9), mode="bilinear", align_corners=True),
    "linear": lambda x: F.interpolate(x.flatten(2), scale_factor=2, mode="linear"),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, (4, 9), mode="nearest"),
    "mean": lambda x: x.mean((2, 3)),
    "mean and keep": lambda x: x.mean(-1, keepdim=True),
    "sum": lambda x: x.sum((1, -1)),
    "average pooling": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "average pooling of what is there": lambda x: F.avg_pool2d(
        x, (3, 2), 2, 1, ceil_mode=True, count_include_pad=False
    ),
    "average pooling with a divisor": lambda x: F.avg_pool2d(x, 2, divisor_override=7),
    "average pooling of lines": lambda x: F.avg_pool1d(x.flatten(2), 4, 3, 1),
    "average pooling of blocks": lambda x: F.avg_pool3d(x, 2, 1),
    "adaptive average": lambda x: F.adaptive_avg_pool2d(x, (4, 3)),
    "global average": lambda x: F.adaptive_avg_pool2d(x, 1),
    "adaptive average of blocks": lambda x: F.adaptive_avg_pool3d(x[:, None], (2, 4, 5)),
    "views": lambda x: x.view(len(x), 2, 2, 42).transpose(1, 2).flatten(1),
    "slices": lambda x: x[:, ::2, 1:, -1],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1] + x.chunk(2, 2)[:0], 1),
    "unbind and stack": lambda x: torch.stack(x.unbind(2)[:3], 1),
    "stack and reduce": lambda x: torch.stack([x, 2 * x]).mean(0) - torch.stack((x, -3 * x)).sum(0),
    "stack and select": lambda x: torch.stack([x, 2 * x, 3 * x])[1] + torch.stack([x, x], 1)[:, 0],
    "concatenate": lambda x: torch.cat([x, 2 * x, x[:, :1]], 1),
    "flip and roll": lambda x: x.flip((1, 3)).roll((1, 2), (2, 3)),
    "indices": lambda x: x[:, COLUMNS] + x[:, 1:][:, :, COLUMNS, COLUMNS][:, :, :1, None],
    "index select": lambda x: x.index_select(3, COLUMNS),
    "gather": lambda x: x.gather(1, torch.zeros(len(x), 2, 6, 7, dtype=torch.long)),
    "repeat": lambda x: x.repeat(1, 2, 1, 3).repeat_interleave(2, 2),
    "zero padding": lambda x: F.pad(x, (1, 2, 0, 3)),
    "negative padding": lambda x: F.pad(x, (-1, -2, 0, 3)),
    "padding with ones": lambda x: F.pad(x, (1, 2, 0, 3, 1, 0), value=1.0),
    "reflection": lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "replication": lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "circular": lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x[..., 1:], 2),
    "channel shuffle": lambda x: F.channel_shuffle(x, 2),
    "unfold": lambda x: F.unfold(x, 3, stride=2),
    "zeros like": lambda x: torch.cat([x, torch.zeros_like(x), torch.full_like(x, 2.0)], 1),
    "casts between floats": lambda x: x.double() + x.to(torch.float32),
    "identities": lambda x: F.dropout(x.clone().detach().contiguous(), training=False),
    "constant": lambda x: draw(x, 1, 5).expand(len(x), 5),
    "no gradients": lambda x: without_gradients(x),
}
PIECEWISE = {
    "relu": F.relu,
    "relu in place": lambda x: F.relu_(x - 0.5),
    "clamp from below": lambda x: (x - 0.5).clamp(min=0),
    "clamp": lambda x: x.clamp(0.25, 0.75),
    "clamp from above": lambda x: x.clamp(max=0.5),
    "clamp by tensors": lambda x: x.clamp(0.1 * draw(x, 7).abs(), torch.full((6, 1), 0.8)),
    "clamp with bounds in the wrong order": lambda x: x.clamp(0.75, 0.25),
    "clamp min": lambda x: x.clamp_min(0.5).clamp_max(0.75),
    "relu6": lambda x: F.relu6(10 * x),
    "hardtanh": lambda x: F.hardtanh(3 * x - 1.5),
    "threshold": lambda x: F.threshold(x, 0.5, 0.5),
    "leaky relu": lambda x: F.leaky_relu(x - 0.5, 0.2),
    "leaky relu with a slope above one": lambda x: F.leaky_relu(x - 0.5, 1.5),
    "prelu": lambda x: F.prelu(x - 0.5, draw(x, 4)),
    "prelu with one slope": lambda x: F.prelu((x - 0.5).flatten(1), torch.tensor([-0.5]).to(x)),
    "rrelu": lambda x: F.rrelu(x - 0.5, training=False),
    "absolute": lambda x: (x - 0.5).abs(),
    "hard sigmoid": lambda x: F.hardsigmoid(8 * x - 4),
    "sigmoid": lambda x: torch.sigmoid(4 * x - 2),
    "tanh": lambda x: torch.tanh(4 * x - 2),
    "tanhshrink": lambda x: F.tanhshrink(4 * x - 2),
    "maximum": lambda x: torch.maximum(x, x.flip(1)) + torch.maximum(x, torch.tensor(0.5)),
    "minimum": lambda x: torch.minimum(x, x.flip(1)) + torch.min(x, 0.5 * torch.ones(6, 1)),
    "expanding maximum": lambda x: torch.maximum(x, x[:, :1]),
    "max pooling": lambda x: F.max_pool2d(x, 2),
    "overlapping max pooling": lambda x: F.max_pool2d(x - 0.5, 3, 2, 1),
    "max pooling that rounds up": lambda x: F.max_pool2d(x - 0.5, (2, 3), 2, ceil_mode=True),
    "max pooling with dilation": lambda x: F.max_pool2d(x - 0.5, (3, 2), 1, 1, dilation=(2, 3)),
    "max pooling of lines": lambda x: F.max_pool1d(x.flatten(2) - 0.5, 5, 3, 2),
    "max pooling of blocks": lambda x: F.max_pool3d(x, 2),
    "adaptive max": lambda x: F.adaptive_max_pool2d(x, (4, 3)),
    "global max": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
    "amax and amin": lambda x: x.amax((1, 3)) - x.amin((1, 3)),
    "max and min": lambda x: x.max(1, keepdim=True).values - x.min(2, keepdim=True).values,
    "max out": lambda x: x.view(len(x), 2, 2, 6, 7).amax(2),
}  # fmt: skip


def assigned(x):
    x = x.clone()
    x[:, 1] = 0.5
    x[:, :, 2:4] *= 2
    x[:, 0, 0] = x[:, 1, 1]
    x[:, 2, :, ::3] = torch.tensor([0.25, 0.5, 0.75])
    x[:, 3] = draw(x, 6, 7)
    return x


def without_gradients(x):
    with torch.no_grad():
        y = 2 * x
    return y + x


class Functions(nn.Module):
    """Many functions of an image in one network, each in three sums of its values."""

    def __init__(self, functions):
        super().__init__()
        self.functions = functions

    def forward(self, x):
        found = [function(x).flatten(1) for function in self.functions.values()]
        return torch.cat([F.linear(y, draw(x, 3, y.shape[1]).to(y)) for y in found], 1)


def images(n=3):
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(7)).double()


@pytest.fixture(scope="module")
def affine():
    return graph_of(Functions(AFFINE), SHAPE)


@pytest.fixture(scope="module")
def piecewise():
    return graph_of(Functions(PIECEWISE), SHAPE)


def part(names, name):
    first = 3 * list(names).index(name)
    return slice(first, first + 3)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_functions(affine, name):
    found = affine(images())[:, part(AFFINE, name)]
    wanted = Functions({name: AFFINE[name]})(images())
    # The network's coefficients of interpolation are rounded to float32.
    tolerance = 1e-5 if "linear" in name else 1e-12
    torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)


def test_affine_functions_have_no_other_nodes(affine):
    assert {node.kind for node in affine.nodes} == {"input", "affine"}


@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_linear_and_s_shaped_functions(piecewise, name):
    found = piecewise(images())[:, part(PIECEWISE, name)]
    torch.testing.assert_close(found, Functions({name: PIECEWISE[name]})(images()))


def test_other_functions_become_three_kinds_of_nodes(piecewise):
    assert {node.kind for node in piecewise.nodes} == {"input", "affine", "relu", "tanh"}


@pytest.mark.parametrize("name", AFFINE)
def test_adjoints_of_an_affine_graph_make_its_gradient(affine, name):
    x = images(2).requires_grad_()
    at = part(AFFINE, name).start
    wanted = torch.autograd.grad(affine(x)[:, at].sum(), x, materialize_grads=True)[0]
    last = len(affine.nodes) - 1
    found = {last: torch.eye(*2 * affine.nodes[last].shape).double()[at].expand(2, -1)}
    for index in range(last, 0, -1):
        node = affine.nodes[index]
        for i, part_of in zip(node.inputs, node.operator.adjoint(found[index]), strict=True):
            found[i] = found.get(i, 0) + part_of
    torch.testing.assert_close(found[0], wanted)


@pytest.mark.parametrize("kind", ["affine", "piecewise"])
def test_every_constant_moves_with_its_graph(kind, request):
    """A tensor that a function kept to itself would stay on the CPU."""
    graph = request.getfixturevalue(kind).to(torch.float32, "meta")
    x = images().float().to("meta")
    assert graph(x).device.type == "meta"
    for node in graph.nodes:
        if node.operator is not None:
            a = torch.zeros(2, *node.shape, device="meta")
            assert all(part.device.type == "meta" for part in node.operator.adjoint(a))
            r = [torch.zeros(2, *shape, device="meta") for shape in node.operator.inputs]
            assert node.operator.radius(*r).shape == (2, *node.shape)
            assert node.operator.magnitude(*r).shape == (2, *node.shape)


@pytest.mark.parametrize("kind", ["affine", "piecewise"])
def test_rounding_in_float32_is_within_its_bound(kind, request):
    """``gamma(terms) (|W| |x| + |b|)`` bounds the rounding of a sum of ``terms`` products."""
    double = request.getfixturevalue(kind)
    single = double.to(torch.float32, "cpu")
    values = [images()]
    for node in double.nodes[1:]:
        values.append(node(*(values[i] for i in node.inputs)))
    for node, rounded in zip(double.nodes, single.nodes, strict=True):
        if node.operator is None:
            continue
        x = [values[i].float() for i in node.inputs]
        off = (rounded.operator(*x).double() - node.operator(*(v.double() for v in x))).abs()
        # One rounding more, of each parameter.
        gamma = 1.01 * (node.operator.terms + 1) * torch.finfo(torch.float32).eps / 2
        bound = gamma * node.operator.magnitude(*(v.double().abs() for v in x))
        assert bool((off <= bound + 1e-38).all()), node.name


@pytest.mark.parametrize("mean", [0.0, 1e3, -1e5])
def test_rounding_of_batch_norm_is_within_its_bound(mean):
    """Where a large mean cancels, the constant term alone says too little."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4).eval()
    norm.running_mean.fill_(mean)
    norm.running_var.uniform_(1e-4, 4)
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    graph = graph_of(nn.Sequential(norm, nn.Flatten(), nn.Linear(168, 3)), SHAPE)
    operator = graph.nodes[1].operator
    x = (mean + torch.randn(50, *SHAPE)).float()
    with torch.no_grad():
        off = (norm(x).double() - operator(x.double())).abs()
    gamma = (operator.terms + 8) * torch.finfo(torch.float32).eps / 2
    assert bool((off <= gamma * operator.magnitude(x.double().abs())).all())
