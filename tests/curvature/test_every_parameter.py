"""Every parameter against dense references, however the network uses it."""

import math

import pytest
import torch
from support.dense import dense_block, dense_full
from support.jacobians import gauss_newton_trace
from support.networks import piecewise_linear
from support.transformers import Attention, Norms, SequenceFirst, hidden_piecewise_linear, shaken
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer

from robaudit.curvature import layer_traces, wci
from robaudit.curvature.per_example import hessian_samples, plain_attention
from robaudit.engine import effective, frozen, generator
from robaudit.errors import NotMeasuredError, UsageError


@pytest.fixture
def batch():
    torch.manual_seed(1)
    return torch.rand(3, 2, 6, 6, dtype=torch.float64), torch.tensor([0, 1, 2])


def small_vit():
    return VisionTransformer(
        image_size=8, patch_size=4, num_layers=2, num_heads=2, hidden_dim=4, mlp_dim=5,
        num_classes=3,
    )  # fmt: skip


def small_swin():
    return SwinTransformer(
        patch_size=[2, 2], embed_dim=4, depths=[1, 1], num_heads=[1, 2], window_size=[2, 2],
        mlp_ratio=1.0, num_classes=3, stochastic_depth_prob=0.0,
    )  # fmt: skip


def encoder():
    """torch's own encoder layer, whose inference path calls no module inside."""
    return nn.Sequential(
        nn.Flatten(2), nn.TransformerEncoderLayer(36, 2, 5, batch_first=True), nn.Flatten(),
        nn.Linear(72, 3),
    )  # fmt: skip


def transformers():
    torch.manual_seed(0)
    return {
        "packed": (Attention(), (2, 6, 6)),
        "packed-sequence-first": (Attention(batch_first=False), (2, 6, 6)),
        "separate": (Attention(separate=True), (2, 6, 6)),
        "no-bias": (Attention(bias=False), (2, 6, 6)),
        "norms": (Norms(), (2, 6, 6)),
        "encoder": (encoder(), (2, 6, 6)),
        "vit": (small_vit(), (3, 8, 8)),
        "swin": (small_swin(), (3, 8, 8)),
    }


def full_name(model, name):
    known = dict(model.named_parameters())
    return name if name in known else f"{name}.weight"


@pytest.mark.parametrize("name", hidden_piecewise_linear())
def test_exact_traces_equal_the_dense_hessian(name, batch):
    model = shaken(hidden_piecewise_linear()[name])
    found = layer_traces(model, *batch, layers="all")
    assert found.bent == ()
    assert found.quantity == "hessian"
    assert [full_name(model, layer) for layer in found.layers] == [
        name for name, _ in model.named_parameters()
    ]
    for layer, trace in found.layers.items():
        parameter = full_name(model, layer)
        dense = dense_block(model, *batch, parameter).trace().item()
        assert trace.trace == pytest.approx(dense, rel=1e-10, abs=1e-13), layer
        norm = model.get_parameter(parameter).norm().item()
        assert trace.frobenius == pytest.approx(norm, rel=1e-12)


@pytest.mark.parametrize("name", piecewise_linear())
def test_biases_scales_and_weights_of_plain_networks(name, batch):
    model = shaken(piecewise_linear()[name])
    found = layer_traces(model, *batch, layers="all")
    assert (found.quantity, found.estimator) == ("hessian", "exact")
    assert len(found.layers) == len(list(model.parameters()))
    for layer, trace in found.layers.items():
        dense = dense_block(model, *batch, full_name(model, layer)).trace().item()
        assert trace.trace == pytest.approx(dense, rel=1e-10, abs=1e-13), layer


@pytest.mark.parametrize("name", transformers())
def test_gauss_newton_traces_equal_the_dense_ones(name):
    model, shape = transformers()[name]
    model = shaken(model)
    torch.manual_seed(1)
    x, y = torch.rand(2, *shape, dtype=torch.float64), torch.tensor([0, 2])
    found = layer_traces(model, x, y, layers="all", estimator="exact")
    assert found.quantity == "gauss-newton"
    assert len(found.layers) == len(list(model.parameters()))
    for layer, trace in found.layers.items():
        dense = gauss_newton_trace(model, x, full_name(model, layer))
        assert trace.trace == pytest.approx(dense, rel=1e-10, abs=1e-13), layer


@pytest.mark.parametrize("name", ["packed", "separate", "encoder", "vit", "swin"])
def test_projections_are_measured_by_default_and_the_rest_is_named(name):
    model, shape = transformers()[name]
    model = shaken(model)
    x, y = torch.rand(2, *shape, dtype=torch.float64), torch.tensor([0, 2])
    found = layer_traces(model, x, y, estimator="gauss-newton")
    measured = {full_name(model, layer) for layer in found.layers}
    matrices = {name for name, p in model.named_parameters() if p.dim() >= 2}
    assert not any(name.endswith("bias") for name in measured)
    assert set(found.uncovered) == matrices - measured
    assert {name.rsplit(".")[-1] for name in found.uncovered} <= {
        "class_token", "pos_embedding", "relative_position_bias_table"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["packed", "separate", "norms", "vit"])
def test_hessian_probes_are_unbiased(name):
    """Mean over copies of two examples within 4.5 standard errors of the dense trace.

    At most 40 parameters a network: a false alarm has a chance below 3e-4.
    """
    model, shape = transformers()[name]
    model = shaken(model)
    torch.manual_seed(1)
    x, y, copies = torch.rand(2, *shape, dtype=torch.float64), torch.tensor([0, 2]), 150
    found = layer_traces(
        model, x.repeat(copies, 1, 1, 1), y.repeat(copies), layers="all", estimator="hessian"
    )
    assert found.quantity == "hessian"
    grouped = found.per_example.reshape(copies, 2, -1)
    error = (grouped.var(0).sum(0) / copies).sqrt() / 2
    for (layer, trace), spread in zip(found.layers.items(), error.tolist(), strict=True):
        dense = dense_block(model, x, y, full_name(model, layer)).trace().item()
        assert abs(trace.trace - dense) < 4.5 * spread + 1e-12, layer


def test_a_probe_is_what_it_says(batch):
    """``<v_k, (H v)_k>`` with the same signs and the dense Hessian in all parameters."""
    model = shaken(Attention())
    x, y = batch[0][:1], batch[1][:1]
    named = dict(model.named_parameters())
    with frozen(model), plain_attention():
        found = hessian_samples(model, named, x, y, example=5, probe=2, seed=3)
    signs = torch.cat(
        [
            torch.randint(
                2, p.shape, generator=generator(3, "parameter-probe", 5, 2, name)
            ).flatten()
            for name, p in named.items()
        ]
    ).double() * 2 - 1  # fmt: skip
    products = signs * (dense_full(model, x, y) @ signs)
    want = [part.sum() for part in products.split([p.numel() for p in named.values()])]
    torch.testing.assert_close(found, torch.stack(want), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("estimator", ["exact", "gauss-newton", "hessian"])
def test_neighbours_and_memory_change_nothing(estimator):
    """70 examples fill several chunks; each keeps its own draws, whatever it is measured with."""
    model = shaken(small_vit())
    x, y = torch.rand(70, 3, 8, 8, dtype=torch.float64), torch.arange(70) % 3
    options = {"estimator": estimator, "layers": "all", "seed": 4}
    whole = layer_traces(model, x, y, **options).per_example
    places = torch.tensor([0, 33, 69])
    part = layer_traces(model, x[places], y[places], index=places, memory=100_000, **options)
    torch.testing.assert_close(whole[places], part.per_example, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("which", ["all", ["attention.in_proj_weight", "embed"], ["head.bias"]])
def test_a_choice_is_a_part_of_the_whole(which, batch):
    model = shaken(Attention())
    whole = layer_traces(model, *batch, layers="all", estimator="exact")
    found = layer_traces(model, *batch, layers=which, estimator="exact")
    assert found.uncovered == ()
    if which != "all":
        assert sorted(found.layers) == sorted(which)
    for layer, trace in found.layers.items():
        assert trace.trace == pytest.approx(whole.layers[layer].trace, rel=1e-10), layer
    index = wci(model, *batch, layers=which, estimator="exact")
    assert index.value == pytest.approx(
        sum(layer.frobenius * math.sqrt(layer.trace) for layer in found.layers.values()), rel=1e-10
    )


@pytest.mark.parametrize("scale", [0.25, 3.0])
def test_wci_is_invariant_under_rescaling_of_hidden_layers(scale, batch):
    """A sequence-first layer before ReLU; batch norm's statistics take the scale away again."""
    model = shaken(SequenceFirst())
    names = ["embed", "head"]
    before = wci(model, *batch, layers=names)
    with torch.no_grad():
        model.embed.weight.mul_(scale)
        model.embed.bias.mul_(scale)
        model.norm.running_mean.mul_(scale)
        model.norm.running_var.mul_(scale**2).add_(model.norm.eps * (scale**2 - 1))
    after = wci(model, *batch, layers=names)
    assert after.value == pytest.approx(before.value, rel=1e-12)
    assert after.bound != pytest.approx(before.bound, rel=1e-3)


def test_a_zero_tensor_contributes_nothing(batch):
    model = shaken(Norms())
    nn.init.zeros_(model.head.bias)
    found = wci(model, *batch, layers="all", estimator="hessian")
    row = next(layer for layer in found.layers if layer.name == "head.bias")
    assert row.frobenius == row.contribution == row.share == 0
    assert row.trace > 0


def test_a_parametrised_weight_is_measured_once(batch):
    """Weight norm: the weight that the layer applies counts, not what it is made from."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3)).double()
    want = layer_traces(plain, *batch)
    nn.utils.parametrizations.weight_norm(plain[1])
    for layers in (None, "all", ["1", "3"]):
        found = layer_traces(plain, *batch, layers=layers)
        assert found.uncovered == ()
        assert {"1", "3"} <= set(found.layers) <= {"1", "3", "1.bias", "3.bias"}
        for name in ("1", "3"):
            assert found.layers[name].trace == pytest.approx(want.layers[name].trace, rel=1e-10)


def test_a_parametrised_weight_that_is_hidden_is_measured_as_it_is_in_effect(batch):
    model = shaken(SequenceFirst())
    nn.utils.parametrizations.weight_norm(model.embed)
    plain = effective(model)
    for layers in (None, ["embed", "head"]):
        found = layer_traces(model, *batch, layers=layers, estimator="exact")
        assert sorted(found.layers) == ["embed", "head"]
        for name in ("embed", "head"):
            want = gauss_newton_trace(plain, batch[0], f"{name}.weight")
            assert found.layers[name].trace == pytest.approx(want, rel=1e-10)


def test_a_compiled_script_is_measured_by_its_parameters(batch):
    """TorchScript has no modules of known kinds, but parameters."""
    plain = shaken(piecewise_linear()["residual"])
    script = torch.jit.trace(plain, batch[0])
    want = layer_traces(plain, *batch, layers="all").layers
    found = layer_traces(script, *batch, layers="all", estimator="exact").layers
    assert set(found) == set(want)
    for name, layer in found.items():
        assert layer.trace == pytest.approx(want[name].trace, rel=1e-10), name


@pytest.mark.parametrize("estimator", ["exact", "hessian"])
def test_the_model_and_torch_are_left_as_they_were(estimator, batch):
    model = shaken(encoder())
    model[3].bias.requires_grad_(False)
    wanted = [p.requires_grad for p in model.parameters()]
    assert torch.backends.mha.get_fastpath_enabled()
    layer_traces(model, *batch, layers="all", estimator=estimator)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    broken = batch[0].clone()
    broken[1] = math.nan
    with pytest.raises(NotMeasuredError, match="1 of 3 images"):
        layer_traces(model, broken, batch[1], layers="all", estimator=estimator)
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert torch.backends.mha.get_fastpath_enabled()


def test_bad_choices_are_refused(batch):
    model = shaken(Attention())
    with pytest.raises(UsageError, match="no layer was named"):
        layer_traces(model, *batch, layers=[])
    with pytest.raises(UsageError, match="in_proj_weigh") as caught:
        layer_traces(model, *batch, layers=["attention.in_proj_weigh"])
    assert "attention.in_proj_weight" in caught.value.advice
    with pytest.raises(UsageError, match=r"one image needs about \d+ bytes"):
        layer_traces(model, *batch, memory=3000)
    only = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(72)).double().eval()
    with pytest.raises(NotMeasuredError, match="no convolution or linear layer") as refused:
        layer_traces(only, *batch)
    assert "--layers all" in refused.value.advice
    assert list(layer_traces(only, *batch, layers="all").layers) == ["1", "1.bias"]
