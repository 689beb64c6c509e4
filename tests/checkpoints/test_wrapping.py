"""What training code puts around a network's keys comes off, and nothing else."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from robaudit.checkpoints.wrapping import unwrappings


class Normalize(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))
        self.register_buffer("std", torch.ones(1, 3, 1, 1))


class Inside(nn.Module):
    """A network that keeps its normalisation beside its layers, as RobustBench's do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        self.fc = nn.Linear(2, 2)
        self.register_buffer("mu", torch.zeros(1, 3, 1, 1))
        self.register_buffer("sigma", torch.ones(1, 3, 1, 1))


def unwrap(shapes):
    return unwrappings(shapes)[-1]


def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def shapes(module):
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


def lightning():
    module = nn.Module()
    module.model = network()
    module.criterion = nn.CrossEntropyLoss(weight=torch.ones(2))
    return module


def madry():
    """The layout of MadryLab's robustness package: an attacker that holds the model again."""
    module, attacker = nn.Module(), nn.Module()
    module.normalizer, module.model = nn.Module(), network()
    module.normalizer.register_buffer("new_mean", torch.zeros(3, 1, 1))
    module.normalizer.register_buffer("new_std", torch.ones(3, 1, 1))
    attacker.normalize, attacker.model = module.normalizer, module.model
    module.attacker = nn.Module()
    module.attacker.normalizer, module.attacker.model = module.normalizer, module.model
    return nn.DataParallel(module)


def compiled():
    module = nn.Module()
    module._orig_mod = network()
    return nn.DataParallel(module)


@pytest.mark.parametrize(
    ("wrapped", "prefix", "normalised"),
    [
        (network, "", False),
        (lambda: nn.DataParallel(network()), "module.", False),
        (compiled, "module._orig_mod.", False),
        (lightning, "model.", False),
        (lambda: AveragedModel(network()), "module.", False),
        (lambda: nn.Sequential(Normalize(), network()), "1.", True),
        (lambda: nn.DataParallel(nn.Sequential(Normalize(), network())), "module.1.", True),
        (madry, "module.model.", True),
    ],
)
def test_the_networks_own_keys_are_left(wrapped, prefix, normalised):
    found = unwrap(shapes(wrapped()))
    assert found.prefix == prefix
    assert list(found.names) == list(network().state_dict())
    assert (found.mean is not None) is normalised
    assert found.shapes == shapes(network())


def test_buffers_beside_the_layers():
    found = unwrap(shapes(nn.DataParallel(Inside())))
    assert list(found.names) == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]
    assert (found.mean, found.std) == ("module.mu", "module.sigma")


def test_every_stage_is_kept_from_the_file_inwards():
    wrapped = nn.DataParallel(nn.Sequential(Normalize(), network()))
    stages = unwrappings(shapes(wrapped))
    assert list(stages[0].names) == list(wrapped.state_dict())
    assert any(list(stage.names) == list(wrapped.module[1].state_dict()) for stage in stages)
    counts = [len(stage.names) for stage in stages]
    assert counts == sorted(counts, reverse=True)


def test_profilers_leftovers_are_dropped():
    state = {**shapes(network()), "total_ops": (1,), "3.total_params": (1,)}
    found = unwrap(state)
    assert list(found.names) == list(network().state_dict())
    assert "total_ops" not in found.names
    assert "3.total_params" not in found.names


def test_what_only_looks_like_a_normalisation_stays():
    layer = {"norm.mean": (64,), "norm.std": (64,), "fc.weight": (10, 64)}
    two = {"a.mean": (3,), "a.std": (3,), "b.mean": (3,), "b.std": (3,), "fc.weight": (10, 64)}
    more = {"stem.mean": (3,), "stem.std": (3,), "stem.weight": (4, 3), "fc.weight": (10, 64)}
    for state in (layer, two, more):
        assert unwrap(state).mean is None
        assert list(unwrap(state).names) == list(state)


def test_a_losses_weights_stay_where_they_may_be_the_networks():
    state = {"conv.weight": (4, 3, 3, 3), "fc.weight": (10, 4), "loss.weight": (10,)}
    assert list(unwrap(state).names) == list(state)


def test_keys_of_a_hostile_file_end():
    deep = {".".join(["x"] * 5000): (1,)}
    assert len(unwrappings(deep)) < 40
    assert unwrap({}).names == {}
    assert len(unwrap({"": (1,), ".": (1,)}).names) == 2


@pytest.mark.parametrize(
    "key",
    [
        "c2._checkpoint_wrapped_module.weight",
        "c2._orig_mod.weight",
        "c2._fsdp_wrapped_module._checkpoint_wrapped_module.weight",
        "c2.module.weight",
    ],
)
def test_a_layers_own_wrapper_comes_off_in_the_middle_of_a_key(key):
    found = unwrap({"module.c1.weight": (4, 3, 3, 3), f"module.{key}": (4, 4, 3, 3)})
    assert dict(found.names) == {"c1.weight": "module.c1.weight", "c2.weight": f"module.{key}"}


def test_a_part_in_data_parallel_comes_off():
    shapes = {"features.module.c1.weight": (4, 3), "features.module.c2.weight": (4, 4)}
    found = unwrap({**shapes, "fc.weight": (10, 4)})
    assert list(found.names) == ["features.c1.weight", "features.c2.weight", "fc.weight"]


def test_a_module_beside_others_is_the_networks_own():
    shapes = {"a.module.weight": (4, 3), "a.scale.weight": (4,), "fc.weight": (10, 4)}
    assert list(unwrap(shapes).names) == list(shapes)
    # Two that would have one name are left.
    both = {"a.module.weight": (4, 3), "a.weight": (4, 3), "fc.weight": (10, 4)}
    assert list(unwrap(both).names) == list(both)


def test_slopes_of_a_relaxation_are_no_weights():
    found = unwrap({"1.conv.weight": (4, 3), "2.deepz_lambda": (4, 14, 14), "3.w": (1,)})
    assert list(found.names) == ["1.conv.weight", "3.w"]
