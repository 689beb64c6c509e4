"""Exact layer traces against nngeometry's, with dense Hessians in float64 as the judge."""

import pytest
import torch
from support.dense import dense_block
from support.networks import piecewise_linear, warmed
from torch.utils.data import DataLoader, TensorDataset

from robaudit.curvature import layer_traces

nngeometry = pytest.importorskip("nngeometry")

# What nngeometry takes of the networks: two-dimensional convolutions without groups, dilation or
# named padding, and linear layers on one row for each example.
NETWORKS = ("stride-padding", "batch-norm", "residual", "linear-only")


def diagonals(model, x, y):
    """The traces of the weights' blocks by ``FIM`` with ``PMatDiag``, two batches, by module."""
    from nngeometry.layercollection import LayerCollection
    from nngeometry.metrics import FIM
    from nngeometry.object.pspace import PMatDiag

    modules = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    collection = LayerCollection()
    for module in modules.values():
        collection.add_layer_from_model(model, module)
    found = FIM(
        model=model,
        loader=DataLoader(TensorDataset(x, y), batch_size=3),
        representation=PMatDiag,
        layer_collection=collection,
        function=lambda *batch: model(batch[0]),
    ).get_diag()
    traces, start = {}, 0
    for name, module in modules.items():  # weight first, then the bias
        weights = module.weight.numel()
        traces[name] = float(found[start : start + weights].sum())
        start += weights + (0 if module.bias is None else module.bias.numel())
    assert start == len(found)
    return traces


@pytest.fixture
def doubles():
    """nngeometry makes its constants in torch's default type."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("doubles")
def test_both_are_the_dense_hessians_traces(name):
    """Float64 throughout, so that the three differ by sums' order alone."""
    model = warmed(piecewise_linear()[name], (2, 6, 6))
    torch.manual_seed(1)
    x, y = torch.rand(5, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    ours = layer_traces(model, x, y, estimator="exact")
    theirs = diagonals(model, x, y)
    assert list(ours.layers) == list(theirs)
    for layer, found in ours.layers.items():
        judge = float(dense_block(model, x, y, f"{layer}.weight").trace())
        assert found.trace == pytest.approx(judge, rel=1e-10), layer
        assert theirs[layer] == pytest.approx(judge, rel=1e-6), layer
