"""Architectures of other packages: found by entry point, kept apart where they fail."""

from importlib.metadata import EntryPoint

import pytest
from torch import nn

from robaudit.checkpoints.architectures import (
    Architecture,
    UnknownArchitectureError,
    identify,
    named,
    registry,
    suspect,
)


def net(width: int = 3) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, width), nn.Linear(width, 2))


def guess(shapes):
    head = shapes.get("1.weight", ())
    return [{"width": head[0]}] if head[1:] == (4,) else []


FAMILY = Architecture("mine", guess, net)
BROKEN = 3


@pytest.fixture
def registering(monkeypatch):
    def register(**points):
        found = [EntryPoint(name, value, registry._GROUP) for name, value in points.items()]
        monkeypatch.setattr(registry, "entry_points", lambda group: found)
        registry.registered.cache_clear()

    yield register
    registry.registered.cache_clear()


def shapes_of(network):
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def here(name):
    return f"{__name__}:{name}"


def test_a_registered_family_is_identified(registering):
    shapes = shapes_of(net(5))
    assert "mine" not in [c.architecture for c in identify(shapes)]
    registering(mine=here("FAMILY"))
    assert "mine(width=5)" in [c.label for c in identify(shapes)]
    assert "mine(width=5)" in [c.label for c in identify(shapes, image=(1, 2, 2))]
    (one,) = named("mine", {}, shapes)
    assert one.arguments == {"width": 5}


def test_a_registered_factory_is_built_by_name_only(registering):
    registering(mine=here("net"))
    shapes = shapes_of(net(5))
    assert "mine" not in [c.architecture for c in identify(shapes)]
    (one,) = named("mine", {"width": 5}, shapes)
    assert one.fits(shapes)
    assert one.label == "mine(width=5)"


@pytest.mark.parametrize("value", ["no_such_module:x", "math:no_such_name", "BROKEN"])
def test_one_that_fails_is_skipped_with_a_warning(registering, value):
    registering(bad=value if ":" in value else here(value), mine=here("FAMILY"))
    with pytest.warns(RuntimeWarning, match="'bad'"):
        found = identify(shapes_of(net(5)))
    assert "mine" in [c.architecture for c in found]
    with pytest.raises(UnknownArchitectureError):
        named("bad", {}, {})


def test_robaudits_own_names_are_not_taken_over(registering):
    registering(resnet=here("net"))
    (one,) = named("resnet", {"depth": 18}, {})
    assert "layer1.0.conv1.weight" in shapes_of(one.build())


def test_looking_at_a_file_runs_no_plugin(registering):
    registering(bad="no_such_module:x")
    assert "mine" not in [c.architecture for c in suspect(shapes_of(net(5)))]


def test_an_unknown_name_gives_those_like_it(registering):
    registering(wide_resnext=here("net"))
    with pytest.raises(UnknownArchitectureError) as caught:
        named("wide_resnt", {}, {})
    assert caught.value.name == "wide_resnt"
    assert set(caught.value.near) >= {"wide_resnet", "wide_resnext"}
