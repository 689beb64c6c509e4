"""torchvision's and timm's models are told by their shapes, at any class count and image size."""

import sys

import pytest
import torch
import torchvision

from robaudit.checkpoints.architectures import identify, named, suspect
from robaudit.checkpoints.architectures.library import TABLE
from robaudit.checkpoints.architectures.library_models import timm_model, torchvision_model
from robaudit.checkpoints.architectures.sketching import sketch

NAMES = torchvision.models.list_models(module=torchvision.models)
FEW = [
    "resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "vgg11", "vgg16_bn",
    "densenet121", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "convnext_tiny",
    "regnet_y_400mf", "swin_t", "swin_v2_t", "vit_b_16", "maxvit_t", "shufflenet_v2_x1_0",
    "squeezenet1_0", "alexnet", "mnasnet1_0",
]  # fmt: skip
SLOW = [pytest.param(n, marks=() if n in FEW else pytest.mark.slow) for n in NAMES]


def shapes_of(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def sketched(name, *arguments):
    return sketch(lambda: torchvision_model(name, *arguments))


@pytest.mark.parametrize("name", SLOW)
def test_torchvisions_models_are_identified(name):
    for classes, channels in ((1000, 3), (7, 1)):
        shapes = shapes_of(sketched(name, classes, channels))
        found = [c for c in identify(shapes) if c.architecture == f"torchvision:{name}"]
        assert [(c.arguments["classes"], c.arguments["channels"]) for c in found] == [
            (classes, channels)
        ]
        assert found[0].label in [c.label for c in suspect(shapes)]
        assert shapes_of(sketch(found[0].build)) == shapes


def test_torchvision_has_the_names_tested():
    assert set(FEW) <= set(NAMES)


@pytest.mark.parametrize("name", ["resnet18", "convnext_tiny", "vit_b_16"])
def test_one_key_or_shape_that_differs_is_another_network(name):
    shapes = shapes_of(sketched(name))
    keys = [key for key in shapes if not key.endswith("num_batches_tracked")]
    for key in keys[::20]:
        assert identify({k: s for k, s in shapes.items() if k != key}) == ()
        wider = {**shapes, key: (*shapes[key][:-1], shapes[key][-1] + 1)}
        assert f"torchvision:{name}" not in [c.label for c in identify(wider)]


@pytest.mark.parametrize("size", [32, 224, 384])
def test_the_image_size_is_read_off_the_positions(size):
    shapes = shapes_of(sketched("vit_b_16", 10, 3, size))
    (one,) = identify(shapes)
    assert one.takes((3, size, size))
    assert not one.takes((3, size + 16, size + 16))
    assert one.arguments["image_size"] == size


def test_weights_and_logits_are_torchvisions():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5).double().eval()
    (one,) = (c for c in identify(shapes_of(theirs)) if c.architecture.startswith("torchvision:"))
    ours = one.build().double().eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_a_library_model_is_told_by_name():
    shapes = shapes_of(sketched("resnet50", 12))
    (one,) = named("torchvision:resnet50", {}, shapes, image=(3, 64, 64))
    assert one.label == "torchvision:resnet50(classes=12)"
    (other,) = named("torchvision:resnet34", {}, shapes)
    assert other.label == "torchvision:resnet34(classes=12)"
    (unknown,) = named("torchvision:resnet51", {}, shapes)
    with pytest.raises(ValueError, match="resnet51"):
        unknown.build()


def test_the_table_is_compact_and_plain():
    from importlib.resources import files

    text = files("robaudit.checkpoints.architectures").joinpath(TABLE).read_text("utf-8")
    assert len(text) < 150_000
    assert text.isascii()
    assert "torchvision:vit_l_16" in text
    assert "timm:vit_large_patch16_224" in text


TIMM = [
    "resnet50d", "resnet26", "vit_small_patch16_224", "vit_large_patch16_224", "convnext_tiny",
    "swin_tiny_patch4_window7_224", "deit3_small_patch16_224", "efficientnet_b0",
    "mobilenetv3_large_100", "xcit_nano_12_p8_224", "beit_base_patch16_224", "resnetv2_50x1_bit",
    "mixer_b16_224", "regnety_004", "cait_xxs24_224", "convnextv2_nano", "vit_tiny_patch16_224",
]  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timms_models_are_identified(name):
    timm = pytest.importorskip("timm")
    shapes = shapes_of(sketch(lambda: timm_model(name, 11, 1)))
    found = {c.architecture: c for c in identify(shapes)}
    assert f"timm:{name}" in found
    one = found[f"timm:{name}"]
    assert (one.arguments["classes"], one.arguments["channels"]) == (11, 1)
    size = timm.create_model(name, pretrained=False).default_cfg["input_size"][-1]
    assert one.takes((1, size, size))


@pytest.mark.parametrize("size", [32, 224, 384])
def test_timms_image_size_is_read_off_the_positions(size):
    pytest.importorskip("timm")
    shapes = shapes_of(sketch(lambda: timm_model("vit_small_patch16_224", 10, 3, size)))
    labels = [c.label for c in identify(shapes, image=(3, size, size))]
    given = "" if size == 224 else f", image_size={size}"
    assert f"timm:vit_small_patch16_224(classes=10{given})" in labels


def test_without_timm_its_models_are_suspected_and_not_identified(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    blocks = torchvision.models.resnet.Bottleneck, [2, 2, 2, 2]
    shapes = shapes_of(sketch(lambda: torchvision.models.ResNet(*blocks, num_classes=9)))
    labels = [c.label for c in suspect(shapes)]
    assert labels[0] == "timm:resnet26(classes=9)"
    assert identify(shapes) == ()
    (one, *_) = named("timm:resnet26", {}, shapes)
    with pytest.raises(ImportError):
        one.build()
