"""Every family is told by its own shapes, exactly; what shapes leave open is listed, and runs."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from robaudit.checkpoints.architectures import ARCHITECTURES, identify, named, parse_arch, suspect
from robaudit.checkpoints.architectures.sketching import sketch

# Networks of many keys: a sketch for each takes seconds.
_DEEP = r"depth=|digits_vit|mobilenet"
CNN_A = "conv3x16k4s2p1-relu-conv16x32k4s2p1-relu-flatten-linear2048x100-relu-linear100x10"

NETWORKS = [
    "resnet(depth=18, activation=relu)",
    "resnet(depth=18, activation=silu)",
    "resnet(depth=18, classes=100, channels=1, activation=relu)",
    "resnet(depth=18, pooled=2, classes=200, activation=relu)",
    "resnet(depth=34, width=16, activation=relu)",
    "resnet(depth=50, activation=relu)",
    "resnet(depth=101, activation=relu)",
    "resnet(depth=152, activation=relu)",
    "resnet(depth=20, width=16, shortcuts=pad, activation=relu)",
    "resnet(depth=110, width=16, activation=relu)",
    "resnet(blocks=basic-1-2-1, width=8, stem=4, activation=relu)",
    "cifar_resnet(depth=18, maxpool=none, activation=relu)",
    "cifar_resnet(depth=50, classes=100, maxpool=3x3, activation=relu)",
    "cifar_resnet(depth=56, width=16, maxpool=none, activation=relu)",
    "preact_resnet(depth=18, activation=relu, shortcut=activated)",
    "preact_resnet(depth=18, activation=relu, shortcut=input)",
    "preact_resnet(depth=18, classes=100, norm=none, activation=silu, shortcut=activated)",
    "preact_resnet(depth=34, activation=relu, shortcut=activated)",
    "preact_resnet(depth=50, channels=1, activation=relu, shortcut=activated)",
    "wide_resnet(depth=28, width=10, activation=relu)",
    "wide_resnet(depth=34, width=10, activation=relu)",
    "wide_resnet(depth=34, width=20, classes=100, activation=silu)",
    "wide_resnet(depth=70, width=16, activation=relu)",
    "wide_resnet(depth=28, width=4, sub_block=1, bias=no, activation=relu)",
    "wide_resnet(depth=10, width=1, channels=1, activation=relu)",
    "wide_resnet_layers(depth=28, width=10, bias=all, stride=second, activation=relu)",
    "wide_resnet_layers(depth=16, width=4, bias=none, stride=first, activation=relu)",
    "wide_resnet_layers(depth=16, width=4, bias=stem, stride=first, activation=relu)",
    "wide_resnet_layers(depth=16, width=4, bias=blocks, stride=second, activation=relu)",
    "dm_wide_resnet(depth=28, width=10, activation=silu)",
    "dm_wide_resnet(depth=70, width=16, classes=100, activation=relu)",
    "dm_preact_resnet(depth=18, activation=silu)",
    "dm_preact_resnet(depth=34, activation=relu)",
    "vgg(depth=11)",
    "vgg(depth=13, classes=100)",
    "vgg(depth=16, norm=none)",
    "vgg(depth=19, channels=1)",
    "vgg(depth=16, head=0:512-3:512-6)",
    "vgg(depth=16, norm=none, head=1:256-4)",
    "vgg(plan=8-M-16-M, pooled=8)",
    "vgg(plan=8-M-16, pooled=16)",
    "mobilenet_v2",
    "mobilenet_v2(classes=100, channels=1)",
    "cifar_mobilenet_v2",
    "cifar_mobilenet_v2(width=140, classes=100)",
    "small_cnn",
    "small_cnn(side=5, classes=7, channels=3)",
    f"sequential_cnn(layers={CNN_A})",
    "plain_cnn(layers=conv3x4k5s1p0-relu-maxpool-flatten-linear784x10, names=conv1-fc1)",
    "vit(width=192, depth=9, hidden=768, patch=4, positions=65, heads=3)",
    "vit(width=384, depth=7, hidden=768, patch=8, positions=17, pool=mean, bias=no, heads=6)",
    "vit(width=256, depth=3, hidden=512, patch=4, positions=64, pool=patches, heads=8)",
    "hf_vit(width=192, depth=3, hidden=768, patch=4, positions=65, heads=3)",
    "digits_resnet",
    "digits_vit",
]
IMAGES = {
    "small_cnn": (1, 28, 28),
    "small_cnn(side=5, classes=7, channels=3)": (3, 32, 32),
    "resnet(depth=18, pooled=2, classes=200, activation=relu)": (3, 64, 64),
    "digits_resnet": (1, 8, 8),
    "digits_vit": (1, 8, 8),
}


def image_for(label):
    _, arguments = parse_arch(label)
    return IMAGES.get(label, (arguments.get("channels", 3), 32, 32))


def sketched(label):
    name, arguments = parse_arch(label)
    return sketch(lambda: ARCHITECTURES[name].factory(**arguments))


def shapes_of(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def test_every_family_is_here():
    assert {parse_arch(label)[0] for label in NETWORKS} == set(ARCHITECTURES)


@pytest.mark.parametrize("label", NETWORKS)
def test_is_identified_by_its_shapes(label):
    shapes = shapes_of(sketched(label))
    labels = [candidate.label for candidate in identify(shapes)]
    assert label in labels
    assert len(set(labels)) == len(labels)
    # Of a chain of layers nobody says what lies between them.
    assert len(labels) <= 5 or label.startswith(("sequential_cnn", "plain_cnn"))
    # The file is judged the same without torch.
    assert label in [candidate.label for candidate in suspect(shapes)]


@pytest.mark.parametrize("label", NETWORKS)
def test_its_label_names_it_and_no_other(label):
    shapes = shapes_of(sketched(label))
    name, arguments = parse_arch(label)
    (only,) = named(name, arguments, shapes, image=image_for(label))
    assert only.label == label


@pytest.mark.parametrize("label", NETWORKS)
def test_takes_its_images(label):
    channels, height, width = image_for(label)
    shapes = shapes_of(sketched(label))
    found = identify(shapes, image=(channels, height, width))
    assert label in [candidate.label for candidate in found]
    assert identify(shapes, image=(channels + 1, height, width)) == ()


@pytest.mark.parametrize(
    "label",
    [
        pytest.param(one, marks=pytest.mark.slow if re.search(_DEEP, one) else ())
        for one in NETWORKS
    ],
)
def test_one_key_or_shape_that_differs_is_another_network(label):
    shapes = shapes_of(sketched(label))
    keys = [key for key in shapes if not key.endswith("num_batches_tracked")]
    for key in {keys[0], keys[-1], *keys[:: max(1, len(keys) // 6)]}:
        missing = {k: s for k, s in shapes.items() if k != key}
        wider = {**shapes, key: (*shapes[key][:-1], shapes[key][-1] + 1)}
        for candidate in (*identify(missing), *identify(wider)):
            # Without a bias, say, it may be a network of its own, but not this one.
            assert shapes_of(sketch(candidate.build)) != shapes
            assert candidate.label != label
    assert identify({**shapes, "extra.weight": (3,)}) == ()


@pytest.mark.parametrize("label", NETWORKS)
def test_nothing_is_done_in_place_and_dropout_is_left_out(label):
    for module in sketched(label).modules():
        assert not getattr(module, "inplace", False)


SMALL = [
    "resnet(blocks=basic-1-1, width=4, classes=3, activation=silu)",
    "resnet(blocks=bottleneck-1-1, width=4, classes=3, shortcuts=pad, activation=relu)",
    "preact_resnet(blocks=bottleneck-1-1, width=4, classes=3, activation=silu, shortcut=input)",
    "cifar_resnet(blocks=basic-1-1, width=4, classes=3, maxpool=3x3, activation=relu)",
    "wide_resnet(depth=10, width=1, classes=3, activation=silu)",
    "wide_resnet_layers(depth=10, width=1, classes=3)",
    "dm_wide_resnet(depth=10, width=1, classes=3)",
    "vgg(plan=4-M-8-M, classes=3)",
    "vit(width=24, depth=1, hidden=9, heads=3, patch=4, positions=17, classes=3)",
    "hf_vit(width=24, depth=1, hidden=9, heads=3, patch=4, positions=17, classes=3)",
    "small_cnn(width=4, hidden=8, classes=3, channels=3, side=1)",
    "sequential_cnn(layers=conv3x4k3s2p1-relu-linear256x3)",
    "plain_cnn(layers=conv3x4k3s2p1-silu-res4x8k3s2bnc-flatten-linear128x3, names=a-b.0-c)",
]


@pytest.mark.parametrize("label", SMALL)
def test_has_second_derivatives(label):
    torch.manual_seed(0)
    name, arguments = parse_arch(label)
    network = ARCHITECTURES[name].factory(**arguments).eval()
    size = 16 if name != "small_cnn" else 18
    loss = F.cross_entropy(network(torch.rand(2, 3, size, size)), torch.tensor([1, 2]))
    weights = [p for p in network.parameters() if p.dim() > 1]
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    second = torch.autograd.grad(sum(g.square().sum() for g in gradients), weights)
    assert all(g.isfinite().all() for g in second)
    assert any(g.abs().sum() > 0 for g in second)


@pytest.mark.parametrize("label", SMALL)
def test_images_do_not_see_each_other(label):
    torch.manual_seed(0)
    name, arguments = parse_arch(label)
    network = ARCHITECTURES[name].factory(**arguments).eval().double()
    size = 16 if name != "small_cnn" else 18
    x = torch.rand(3, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(x)[1:2], network(x[1:2]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("label", "complaint"),
    [
        ("resnet(depth=19)", "depth"),
        ("resnet(blocks=basic-0-1)", "blocks|basic"),
        ("resnet(blocks=strange-1-1)", "strange"),
        ("resnet(shortcuts=none)", "shortcuts"),
        ("resnet(activation=gelu)", "activation"),
        ("preact_resnet(shortcut=none)", "shortcut"),
        ("preact_resnet(norm=layer)", "norm"),
        ("wide_resnet(depth=30)", "30"),
        ("wide_resnet(bias=1)", "bias"),
        ("dm_preact_resnet(depth=50)", "50"),
        ("vgg(depth=12)", "12"),
        ("vgg(plan=64-P)", "64-P"),
        ("sequential_cnn(layers=conv3)", "conv3"),
        ("sequential_cnn", "layers"),
        ("plain_cnn(layers=linear4x2, names=a-b)", "more names"),
        ("plain_cnn(layers=linear4x2-relu-linear2x2, names=a)", "more layers"),
        ("plain_cnn(layers=res4x8k3s2, names=a)", "shortcut"),
        ("cifar_resnet(maxpool=2x2)", "2x2"),
        ("resnet(depths=18)", "depths"),
        ("vgg(depth=big)", "big"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(label, complaint):
    name, arguments = parse_arch(label)
    candidate = ARCHITECTURES[name].candidate(arguments)
    with pytest.raises(ValueError, match=complaint):
        candidate.build()


def test_a_known_name_that_does_not_fit_is_given_back_to_be_compared():
    shapes = shapes_of(sketched("resnet(depth=18, classes=7)"))
    (only, *others) = named("resnet", {"depth": 34}, shapes)
    assert only.label == "resnet(depth=34, classes=7, activation=relu)"
    assert others == []
    (other,) = named("wide_resnet", {}, shapes)
    assert isinstance(other.build(), nn.Module)


def test_pinned_arguments_win():
    shapes = shapes_of(sketched("wide_resnet(depth=16, width=2)"))
    (only,) = named("wide_resnet", {"activation": "silu"}, shapes)
    assert only.label == "wide_resnet(depth=16, width=2, activation=silu)"
    assert any(isinstance(module, nn.SiLU) for module in only.build().modules())


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        {"conv1.weight": (), "linear.weight": (10, 512), "bn1.weight": (64,)},
        {
            "conv1.weight": (2**60, 3, 3, 3),
            "bn1.weight": (2**60,),
            "layer1.0.conv1.weight": (2**60, 2**60, 3, 3),
            "layer1.0.bn1.weight": (2**60,),
            "linear.weight": (2**60, 2**60),
        },
        {"features.0.weight": (8, 3, 3, 3), "classifier.weight": (0, 0)},
        {"0.weight": (4, 3, 3, 3), "2.weight": (10, 0)},
        {f"{2 * i}.weight": (4, 4, 3, 3) for i in range(99)} | {"198.weight": (10, 36)},
        {f"{2 * i}.weight": (4, 4, 7, 7) for i in range(8)} | {"16.weight": (10, 4 * 2**40)},
        {"99999.weight": (4, 4, 3, 3), "100000.weight": (10, 36)},
        {f"blocks.{i}.attn.qkv.weight": (192, 64) for i in range(20_000)}
        | {"blocks.0.mlp.fc1.weight": (9, 64), "patch_embed.proj.weight": (64, 3, 4, 4)}
        | {"pos_embed": (1, 10**12, 64), "head.weight": (10, 64)},
        {f"features.{3 * i}.weight": (64, 64, 3, 3) for i in range(5000)}
        | {"classifier.weight": (10, 64)},
        {"init_conv.weight": (16, 3, 3, 3), "layer.0.block.0.conv_0.weight": (0, 0, 0, 0)},
        {"feature_extractor.conv1.weight": (1, 1, 3, 3), "classifier.fc1.weight": (3, 5)},
    ],
)
def test_absurd_shapes_are_no_known_network(shapes):
    assert identify(shapes) == ()


SKETCHES = [
    shapes_of(sketched(label))
    for label in (*SMALL, "mobilenet_v2", "dm_preact_resnet", "digits_vit", "cifar_mobilenet_v2")
] + [shapes_of(sketch(lambda: ARCHITECTURES["vgg"].factory(head="0:8-3:8-6")))]
ODD_SHAPES = st.lists(st.sampled_from([0, 1, 2, 3, 7, 16, 512, 10**6, 2**62]), max_size=5)


@pytest.mark.slow
@given(st.sampled_from(SKETCHES), st.data())
@settings(max_examples=300, deadline=None)
def test_no_shapes_are_too_odd_to_be_judged(shapes, data):
    keys = sorted(shapes)
    changed = data.draw(st.dictionaries(st.sampled_from(keys), ODD_SHAPES.map(tuple), max_size=3))
    gone = data.draw(st.sets(st.sampled_from(keys), max_size=3))
    odd = {key: shape for key, shape in {**shapes, **changed}.items() if key not in gone}
    for candidate in suspect(odd):
        assert all(isinstance(v, str) or v > 0 for v in candidate.arguments.values())
    for candidate in identify(odd):
        assert candidate.fits(odd)
