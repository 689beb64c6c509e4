"""Families are recognised by their shapes, exactly; the sample files are what they claim to be."""

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file
from torch.nn import functional as F

from robaudit.checkpoints.architectures import ARCHITECTURES, identify

SAMPLES = Path(__file__).parents[2] / "sample_checkpoints"
FILES = sorted([*SAMPLES.rglob("*.pt"), *SAMPLES.rglob("*.safetensors")])


def shapes_of(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def read(path):
    if path.suffix == ".safetensors":
        return load_file(path)
    return torch.load(path, weights_only=True)


ARGUMENTS = {
    "digits_resnet": st.fixed_dictionaries(
        {"classes": st.integers(1, 12), "channels": st.integers(1, 4), "width": st.integers(1, 9)}
    ),
    "digits_vit": st.fixed_dictionaries(
        {
            "classes": st.integers(1, 12),
            "channels": st.integers(1, 4),
            "width": st.integers(1, 3).map(lambda i: 4 * i),
            "depth": st.integers(1, 3),
            "patch": st.integers(1, 3),
            "tokens": st.integers(1, 9),
        }
    ),
}


def found_in(shapes):
    """The one architecture and its arguments."""
    (only,) = identify(shapes)
    return only.architecture, only.arguments


@pytest.mark.parametrize("name", ARGUMENTS)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_every_network_of_a_family_is_recognised_with_its_arguments(name, data):
    arguments = data.draw(ARGUMENTS[name])
    network = ARCHITECTURES[name].factory(**arguments)
    assert found_in(shapes_of(network.state_dict())) == (name, arguments)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_one_key_or_shape_that_differs_is_another_network(name):
    shapes = shapes_of(ARCHITECTURES[name].factory().state_dict())
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            continue
        missing = {k: s for k, s in shapes.items() if k != key}
        assert identify(missing) == ()
        assert identify({**shapes, key: (*shape[:-1], shape[-1] + 1)}) == ()
    assert identify({**shapes, "extra.weight": (3,)}) == ()


def test_batch_norm_counters_may_be_missing_as_in_old_files():
    shapes = shapes_of(ARCHITECTURES["digits_resnet"].factory().state_dict())
    old = {k: s for k, s in shapes.items() if not k.endswith("num_batches_tracked")}
    assert len(old) < len(shapes)
    assert found_in(old)[0] == "digits_resnet"


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"conv.weight": (3,), "head.weight": ()},
        {"conv.weight": (10**9, 1, 3, 3), "head.weight": (10**9, 10**9)},
        {"conv.weight": (0, 0, 0, 0), "head.weight": (0, 0)},
        {"embed.weight": (0, 1, 2, 2), "head.weight": (1, 1), "positions": (1, 1, 1)},
        {"embed.weight": (6, 1, 2, 2), "head.weight": (1, 6), "positions": (1, 1, 6)},
    ],
)
def test_absurd_shapes_are_no_known_network(shapes):
    assert identify(shapes) == ()


@pytest.mark.parametrize("name", ARGUMENTS)
def test_gives_logits_that_depend_on_the_image_alone(name):
    network = ARCHITECTURES[name].factory().eval()
    x = torch.rand(5, 1, 8, 8)
    with torch.no_grad():
        logits = network(x)
        alone = network(x[2:3])
    assert logits.shape == (5, 10)
    # Batches of one and of five may run through different kernels.
    torch.testing.assert_close(alone[0], logits[2], rtol=1e-4, atol=1e-5)


def test_attention_is_pytorchs_multi_head_attention():
    block = ARCHITECTURES["digits_vit"].factory().blocks[0].double()
    ours = block.attention
    theirs = torch.nn.MultiheadAttention(40, 4, batch_first=True).double()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight.detach(),
            "in_proj_bias": ours.qkv.bias.detach(),
            "out_proj.weight": ours.proj.weight.detach(),
            "out_proj.bias": ours.proj.bias.detach(),
        }
    )
    x = torch.randn(3, 16, 40, dtype=torch.float64)
    expected, _ = theirs(x, x, x, need_weights=False)
    torch.testing.assert_close(ours.proj(block._attention(x)), expected)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_has_second_derivatives(name):
    network = ARCHITECTURES[name].factory().eval()
    loss = F.cross_entropy(network(torch.rand(2, 1, 8, 8)), torch.tensor([1, 2]))
    weights = [p for p in network.parameters() if p.dim() > 1]
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), weights)
    assert all(g.isfinite().all() for g in second)
    assert any(g.abs().sum() > 0 for g in second)


def test_the_samples_are_all_there_and_small():
    names = {str(path.relative_to(SAMPLES)) for path in FILES}
    assert {"standard.pt", "robust.pt", "overfit.pt"} < names
    assert {"trades.safetensors", "smooth.safetensors"} < names
    assert sum(name.startswith("epochs/") for name in names) == 8
    assert sum(path.stat().st_size for path in FILES) < 4e6


def test_checksums_list_every_sample_and_hold():
    lines = (SAMPLES / "SHA256SUMS").read_text().splitlines()
    listed = {name: digest for digest, name in (line.split("  ") for line in lines)}
    actual = {
        path.relative_to(SAMPLES).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in FILES
    }
    assert listed == actual


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_sample_is_plain_recognised_and_fits(path):
    state = read(path)
    for key, value in state.items():
        counter = key.endswith("num_batches_tracked")
        assert value.dtype == (torch.int64 if counter else torch.float32)
        assert value.isfinite().all()
    found = found_in(shapes_of(state))
    assert found[0] == ("digits_vit" if path.stem == "smooth" else "digits_resnet")
    ARCHITECTURES[found[0]].factory(**found[1]).load_state_dict(state)


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.suffix == ".safetensors"], ids=lambda p: p.name
)
def test_metadata_names_the_architecture_that_the_shapes_show(path):
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    found = found_in(shapes_of(read(path)))
    assert metadata["robaudit.architecture"] == found[0]
    assert metadata["robaudit.normalization"] == "none"
    assert metadata["robaudit.data"] == "digits"
    assert "0.15" in metadata["robaudit.trained"]
