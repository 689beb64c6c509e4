"""robaudit's families compute what RobustBench's classes do, where RobustBench is installed.

RobustBench's residual networks are kuangliu's, Rice's, TRADES's and DeepMind's own code. Its
package does not import on a fresh machine, so the parts are imported beneath empty packages.
"""

import importlib
import importlib.util
import sys
import types
from pathlib import Path

import pytest
import torch
from support.networks import warmed
from torch import nn

from robaudit.checkpoints.architectures import identify, named

PACKAGES = ("robustbench", "robustbench.model_zoo", "robustbench.model_zoo.architectures")


@pytest.fixture
def zoo(monkeypatch):
    spec = importlib.util.find_spec("robustbench")
    if spec is None or spec.origin is None:
        pytest.skip("RobustBench is not installed")
    folder = Path(spec.origin).parent
    for name in [name for name in sys.modules if name.startswith("robustbench")]:
        monkeypatch.delitem(sys.modules, name)
    for name in PACKAGES:
        package = types.ModuleType(name)
        package.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, package)
    return lambda module: importlib.import_module(f"{PACKAGES[-1]}.{module}")


def plain(**options):
    """Without normalisation: robaudit keeps that outside."""
    return {**options, "mean": (0.0,) * 3, "std": (1.0,) * 3}


def resnet(zoo, block, counts, classes=10):
    module = zoo("resnet")
    return module.ResNet(getattr(module, block), counts, classes)


def preact(zoo, block, counts, **options):
    module = zoo("resnet")
    chosen = getattr(module, block)

    def build(inputs, width, stride, out_shortcut):
        # The bottleneck does not take the option that the network passes on.
        options = {} if block == "PreActBottleneck" else {"out_shortcut": out_shortcut}
        return chosen(inputs, width, stride, **options)

    build.expansion = chosen.expansion
    return module.PreActResNet(build, counts, **options)


def wide(zoo, **options):
    return zoo("wide_resnet").WideResNet(**options)


def dm_wide(zoo, activation, **options):
    module = zoo("dm_wide_resnet")
    return module.DMWideResNet(
        activation_fn=getattr(module, activation, nn.ReLU), **plain(**options)
    )


def dm_preact(zoo, activation, **options):
    module = zoo("dm_wide_resnet")
    return module.DMPreActResNet(
        activation_fn=getattr(module, activation, nn.ReLU), **plain(**options)
    )


def card(zoo, **options):
    return zoo("CARD_resnet").LRR_ResNet(**options)


def cases():
    two, four = [2, 2, 2, 2], [3, 4, 6, 3]
    act, inp = "shortcut=activated", "shortcut=input"
    return {
        "resnet(depth=18, activation=relu)": lambda z: resnet(z, "BasicBlock", two),
        "resnet(depth=34, classes=7, activation=relu)": lambda z: resnet(z, "BasicBlock", four, 7),
        "resnet(depth=50, activation=relu)": lambda z: resnet(z, "Bottleneck", four),
        f"preact_resnet(depth=18, norm=none, activation=relu, {inp})": lambda z: preact(
            z, "PreActBlock", two
        ),
        f"preact_resnet(depth=18, activation=relu, {inp})": lambda z: preact(
            z, "PreActBlock", two, bn_before_fc=True
        ),
        f"preact_resnet(depth=18, activation=relu, {act})": lambda z: preact(
            z, "PreActBlockV2", two, bn_before_fc=True
        ),
        f"preact_resnet(depth=34, classes=100, norm=none, activation=relu, {act})": lambda z: (
            preact(z, "PreActBlock", four, num_classes=100, out_shortcut=True)
        ),
        f"preact_resnet(depth=50, activation=relu, {act})": lambda z: preact(
            z, "PreActBottleneck", four, bn_before_fc=True
        ),
        "wide_resnet(depth=28, width=4, activation=relu)": lambda z: wide(
            z, depth=28, widen_factor=4
        ),
        "wide_resnet(depth=16, width=2, sub_block=1, bias=no, activation=relu)": lambda z: wide(
            z, depth=16, widen_factor=2, sub_block1=True, bias_last=False
        ),
        "wide_resnet(depth=10, width=1, classes=5, activation=relu)": lambda z: wide(
            z, depth=10, widen_factor=1, num_classes=5
        ),
        "dm_wide_resnet(depth=28, width=2, activation=silu)": lambda z: dm_wide(
            z, "Swish", depth=28, width=2
        ),
        "dm_wide_resnet(depth=16, width=1, activation=relu)": lambda z: dm_wide(
            z, "ReLU", depth=16, width=1
        ),
        "dm_preact_resnet(depth=18, activation=silu)": lambda z: dm_preact(z, "Swish", depth=18),
        "dm_preact_resnet(depth=34, activation=relu)": lambda z: dm_preact(z, "ReLU", depth=34),
        "cifar_resnet(depth=18, width=16, maxpool=none, activation=relu)": lambda z: card(
            z, width=16
        ),
    }


CASES = cases()


@pytest.mark.parametrize("label", CASES)
def test_logits_are_those_of_the_class(zoo, label):
    torch.manual_seed(0)
    theirs = warmed(CASES[label](zoo), None)
    state = theirs.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    found = {candidate.label: candidate for candidate in identify(shapes, image=(3, 32, 32))}
    assert label in found
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(x)
        logits = {}
        for name, candidate in found.items():
            ours = candidate.build().double().eval()
            ours.load_state_dict(state)
            logits[name] = ours(x)
    # Double precision, summed in another order at most.
    torch.testing.assert_close(logits.pop(label), expected, rtol=1e-9, atol=1e-9)
    for name, other in logits.items():
        assert (other - expected).abs().max() > 1e-3, f"{name} is the same function"


def test_the_references_are_told_by_name_too(zoo):
    theirs = CASES["wide_resnet(depth=16, width=2, sub_block=1, bias=no, activation=relu)"](zoo)
    shapes = {key: tuple(value.shape) for key, value in theirs.state_dict().items()}
    (one,) = named("wide_resnet", {"activation": "silu"}, shapes)
    assert one.arguments["depth"] == 16
