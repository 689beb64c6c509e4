"""Which of several state dicts is taken, that it is said, and how another is named."""

import pytest
import torch
from torch import nn

from robaudit.checkpoints import read_container, read_state_dict
from robaudit.errors import CheckpointError, UsageError

MARKS = iter(range(1, 10_000))


def state(mark=None):
    mark = next(MARKS) if mark is None else mark
    return {"conv.weight": torch.full((2, 2), float(mark)), "conv.bias": torch.ones(2)}


def saved(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def mark(weights):
    return next(iter(weights.state_dict.values())).flatten()[0].item()


NAMES = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params", "ema")


@pytest.mark.parametrize("key", [*NAMES, "swa", "last", "best"])
def test_names_under_which_weights_are_found(tmp_path, key):
    weights = read_state_dict(saved(tmp_path, {"epoch": 1, key: state(5)}))
    assert (weights.member, mark(weights), weights.remarks) == (key, 5, ())


def test_an_unknown_name_is_found_if_it_is_the_only_one(tmp_path):
    content = {"acc": torch.tensor(0.5), "my_own": state(3), "optimizer": {"state": state(4)}}
    weights = read_state_dict(saved(tmp_path, content))
    assert (weights.member, mark(weights)) == ("my_own", 3)


@pytest.mark.parametrize(
    ("content", "taken", "others"),
    [
        ({"model": 1, "state_dict": 2}, "state_dict", ["model"]),
        ({"ema": 1, "model": 2}, "model", ["ema"]),
        ({"best": 1, "last": 2}, "last", ["best"]),
        ({"state_dict_ema": 1, "state_dict": 2}, "state_dict", ["state_dict_ema"]),
        ({"swa_state_dict": 1, "ema_state_dict": 2, "net": 3}, "net", ["ema_state_dict"]),
        ([1, 2, 3], "[0]", ["[1]", "[2]"]),
        ({"state_dict": [1, 2]}, "state_dict[0]", ["state_dict[1]"]),
        ({"best": {"model": 1, "ema": 2}, "last": {"model": 3}}, "last.model", ["best.ema"]),
        (
            {"model_state_dict": 1, "unaveraged_model_state_dict": 2},
            "unaveraged_model_state_dict",
            ["model_state_dict"],
        ),
        ({"student": 1, "teacher": 2}, "student", ["teacher"]),
    ],
)
def test_the_order_is_fixed_and_said(tmp_path, content, taken, others):
    def filled(node):
        if isinstance(node, dict):
            return {key: filled(value) for key, value in node.items()}
        return [filled(value) for value in node] if isinstance(node, list) else state(node)

    path = saved(tmp_path, filled(content))
    weights = read_state_dict(path)
    assert weights.member == taken
    (remark,) = weights.remarks
    assert all(repr(place) in remark for place in [taken, *others])
    assert "--member" in remark
    for other in others:
        assert read_state_dict(path, member=other).member == other
    assert read_container(path).members[0] == taken


def test_copies_are_asked_for_by_kind(tmp_path):
    path = saved(tmp_path, {"model": state(1), "ema": state(2), "swa_model": state(3)})
    found = {kind: mark(read_state_dict(path, weights=kind)) for kind in ("raw", "ema", "swa")}
    assert found == {"raw": 1, "ema": 2, "swa": 3}


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_a_copy_that_is_not_there(tmp_path, kind):
    with pytest.raises(UsageError, match=rf"no {kind} weights .*'model'"):
        read_state_dict(saved(tmp_path, {"model": state()}), weights=kind)


def test_a_member_that_is_not_there(tmp_path):
    path = saved(tmp_path, {"model": state(), "ema_model": state()})
    with pytest.raises(UsageError, match="'model', 'ema_model'") as caught:
        read_state_dict(path, member="ema_modle")
    assert "--member ema_model" in caught.value.advice


def prefixed(**groups):
    return {f"{group}.{k}": v for group, n in groups.items() for k, v in state(n).items()}


@pytest.mark.parametrize(
    ("content", "raw", "averaged"),
    [
        (
            prefixed(online_model=1, ema_model=2) | {"step": torch.tensor(1)},
            "online_model",
            "ema_model",
        ),
        (prefixed(model=1, model_ema=2), "model", "model_ema"),
        (state(1) | prefixed(ema=2), "", "ema"),
        ({f"module.{k}": v for k, v in prefixed(net=1, swa_model=2).items()}, "net", "swa_model"),
        (
            prefixed(model=1)
            | {f"averaged_model.module.{k}": v for k, v in state(2).items()}
            | {"averaged_model.n_averaged": torch.tensor(5)},
            "model",
            "averaged_model",
        ),
    ],
)
@pytest.mark.parametrize("under", ["", "state_dict"])
def test_a_network_and_its_average_in_one_state_dict(tmp_path, content, raw, averaged, under):
    path = saved(tmp_path, {under: content} if under else content)
    joined = [".".join(filter(None, [under, part])) for part in (raw, averaged)]
    first = read_state_dict(path)
    assert (first.member, mark(first)) == (joined[0], 1)
    second = read_state_dict(path, weights="swa" if "swa" in averaged else "ema")
    assert (second.member, mark(second)) == (joined[1], 2)
    # Nothing is lost, and no tensor is in both.
    assert {*first.state_dict} | {*second.state_dict} == {*content}
    assert not {*first.state_dict} & {*second.state_dict}


def test_torchs_own_averages(tmp_path):
    net = nn.Linear(2, 2)
    swa = torch.optim.swa_utils.AveragedModel(net)
    path = saved(tmp_path, {"model": net.state_dict(), "swa_model": swa.state_dict()})
    assert "module.weight" in read_state_dict(path, weights="swa").state_dict


def test_a_part_that_only_looks_like_a_copy_stays(tmp_path):
    content = {"ema.scale": torch.ones(3), "conv.weight": torch.ones(2), "conv.bias": torch.ones(2)}
    assert len(read_state_dict(saved(tmp_path, content)).state_dict) == 3


def test_the_choice_of_a_refused_file_is_an_error_with_a_way_out(tmp_path):
    path = saved(tmp_path, {"a": state(), "b": state()})
    with pytest.raises(CheckpointError, match="2 sets of tensors") as caught:
        read_state_dict(path)
    assert "--member" in caught.value.advice
