"""Weights come out as they went in, or not at all."""

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints import read_container, read_state_dict
from robaudit.checkpoints.files import reading
from robaudit.errors import CheckpointError


def saved(tmp_path, content, name="w.pt"):
    torch.save(content, tmp_path / name)
    return tmp_path / name


def test_keys_stay_as_they_are_in_the_file(tmp_path):
    state = {"module._orig_mod.a": torch.ones(1), "module._orig_mod.b": torch.ones(1)}
    assert list(read_state_dict(saved(tmp_path, state)).state_dict) == list(state)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2, torch.cfloat])
def test_weights_that_are_not_finite(tmp_path, bad, dtype):
    spoiled = torch.ones(4, 3)
    spoiled[1, 2] = spoiled[0, 0] = bad
    path = saved(tmp_path, {"good": torch.ones(2), "conv.weight": spoiled.to(dtype)})
    with pytest.raises(
        CheckpointError, match=r"2 weights are not finite, in conv\.weight"
    ) as caught:
        read_state_dict(path)
    assert caught.value.exit_code == 4


def test_many_tensors_that_are_not_finite(tmp_path):
    state = {f"layer{n}": torch.full((2,), float("nan")) for n in range(9)}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match=r"18 weights .* and 6 more"):
        read_state_dict(tmp_path / "w.safetensors")


def test_largest_numbers_are_finite(tmp_path):
    state = {
        str(dtype): torch.full((2,), torch.finfo(dtype).max, dtype=dtype)
        for dtype in (torch.float16, torch.float32, torch.float64, torch.bfloat16)
    }
    assert read_state_dict(saved(tmp_path, state)).state_dict.keys() == state.keys()


def test_nested_members(tmp_path):
    weights = read_state_dict(saved(tmp_path, {"model": {"state_dict": {"w": torch.ones(1)}}}))
    assert weights.member == "model.state_dict"


def test_values_beside_the_tensors_are_left_out(tmp_path):
    weights = read_state_dict(saved(tmp_path, {"w": torch.ones(1), "epoch": 3, 5: torch.ones(1)}))
    assert list(weights.state_dict) == ["w"]
    assert weights.metadata == {"epoch": "3"}


def test_a_file_of_a_gpu_is_read_on_the_cpu(tmp_path):
    """The location is a string in the pickle; a file saved on a GPU differs in it alone."""
    path = saved(tmp_path, {"w": torch.ones(3)})
    torch.save({"w": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert data.count(b"X\x03\x00\x00\x00cpu") == 1
    path.write_bytes(data.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"))
    assert read_state_dict(path).state_dict["w"].device.type == "cpu"


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = saved(tmp_path, {"w": torch.ones(3)})
    plain = reading.materialise

    def slow(elements):
        result = plain(elements)
        torch.save({"w": torch.ones(300)}, path)
        return result

    monkeypatch.setattr(reading, "materialise", slow)
    with pytest.raises(CheckpointError, match="changed while it was read"):
        read_state_dict(path)


def test_hashing_tells_how_far_it_is(tmp_path):
    path = saved(tmp_path, {"w": torch.ones(700_000)})
    told = []
    read_container(path, hash=True, progress=told.append)
    assert len(told) > 1
    assert sum(told) == path.stat().st_size


def test_booleans_that_are_none_are_read_as_true(tmp_path):
    """torch itself computes nonsense with such bytes."""
    path = saved(tmp_path, {"w": torch.tensor([True, False, True])}, "bool.pt")
    torch.save({"w": torch.tensor([True, False, True])}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-3] + bytes([7, 0, 255]))
    assert read_state_dict(path).state_dict["w"].view(torch.uint8).tolist() == [1, 0, 1]


def test_only_the_chosen_state_dict_is_read(tmp_path):
    """Damage elsewhere does not matter, and memory is that of the weights."""
    path = saved(
        tmp_path, {"model": {"w": torch.ones(3)}, "optimizer": {"m": torch.full((9,), 7.0)}}
    )
    data = path.read_bytes()
    place = data.index(torch.full((9,), 7.0).numpy().tobytes())
    path.write_bytes(data[:place] + b"\xff" + data[place + 1 :])
    assert read_state_dict(path).state_dict["w"].tolist() == [1, 1, 1]
