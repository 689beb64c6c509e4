"""The listing without torch equals what torch itself loads."""

import hashlib
import json
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from robaudit.checkpoints import findings, inspect_file, read_container, read_state_dict
from robaudit.errors import CheckpointError

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32]
DTYPES += [torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64]
ZIP_ONLY = [torch.float8_e4m3fn, torch.uint16]  # need _rebuild_tensor_v3

# Without dots, which could make one network and its average of the keys.
names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="."), min_size=1, max_size=12
)
shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


def tensor(shape, dtype, layout):
    made = torch.zeros(shape, dtype=dtype)
    if layout == "transposed" and made.ndim > 1:
        return made.transpose(0, -1)
    if layout == "slice" and made.ndim and len(made):
        return torch.zeros((len(made) + 3, *made.shape[1:]), dtype=dtype)[2:-1]
    if layout == "parameter" and made.is_floating_point():
        return nn.Parameter(made, requires_grad=False)
    return made


tensors = st.builds(
    tensor,
    shapes,
    st.sampled_from(DTYPES),
    st.sampled_from(["plain", "transposed", "slice", "parameter"]),
)
members = st.sampled_from(["", "state_dict", "model_state_dict", "model", "net", "list"])


def wrapped(state, member):
    if member == "":
        return state
    if member == "list":
        return {"acc": torch.tensor(3), "state_dict": [state]}
    return {"epoch": 7, member: state, "optimizer": {"state": {0: {"m": torch.ones(2)}}}}


def listing(tensors):
    return [(i.name, i.shape, i.dtype) for i in tensors]


def reference(state):
    return [(k, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()]


@given(
    st.dictionaries(names, tensors, min_size=1, max_size=6), members, st.booleans(), st.booleans()
)
@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_listing_equals_torch(tmp_path, state, member, zipped, shared):
    if shared:
        state = {**state, "shared": next(iter(state.values()))}
    path = tmp_path / "generated.pt"
    # A state dict whose own keys are the names of members is not one torch ever makes.
    state = OrderedDict((f"layer.{key}", value) for key, value in state.items())
    torch.save(wrapped(state, member), path, _use_new_zipfile_serialization=zipped)
    loaded = torch.load(path, weights_only=True)
    if member:
        loaded = loaded["state_dict"][0] if member == "list" else loaded[member]
    container = read_container(path)
    assert container.format == ("torch-zip" if zipped else "torch-legacy")
    assert container.member == ("state_dict[0]" if member == "list" else member)
    assert listing(container.tensors) == reference(loaded)
    assert all(finding.severity == "harmless" for finding in container.findings)
    assert container.refusal is None
    assert container.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert container.size == path.stat().st_size
    weights = read_state_dict(path)
    assert weights.state_dict.keys() == loaded.keys()
    assert all(torch.equal(weights.state_dict[key], loaded[key]) for key in loaded)


@pytest.mark.parametrize("dtype", ZIP_ONLY)
def test_newer_dtypes(tmp_path, dtype):
    path = tmp_path / "new.pt"
    torch.save({"w": torch.zeros(2, 3, dtype=dtype)}, path)
    assert listing(read_container(path).tensors) == [("w", (2, 3), str(dtype)[6:])]
    assert read_state_dict(path).state_dict["w"].dtype == dtype


@pytest.mark.parametrize("zipped", [True, False])
def test_a_network_with_an_optimizer(tmp_path, zipped):
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    content = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 12,
        "lr": 0.1,
        "done": True,
        "note": "x" * 300,
    }
    path = tmp_path / "whole.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    seen = inspect_file(path)
    assert listing(seen.tensors) == reference(network.state_dict())
    assert seen.parameters == sum(p.numel() for p in network.parameters())
    assert seen.metadata == {"epoch": "12", "lr": "0.1", "done": "True"}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_pickle_protocol(tmp_path, protocol, zipped):
    path = tmp_path / "new.pt"
    state = {"w": torch.randn(2, 3), "b": torch.arange(4)[1:]}
    torch.save(state, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert listing(read_container(path).tensors) == [("w", (2, 3), "float32"), ("b", (3,), "int64")]
    loaded = read_state_dict(path).state_dict
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_layout_and_sharing_are_those_torch_gives(tmp_path):
    base = torch.randn(4, 6)
    state = {
        "whole": base,
        "turned": base.t(),
        "part": base[1:3, ::2],
        "expanded": base[:, :1].expand(4, 5),
        "scalar": base[2, 3],
        "none": base[:0],
    }
    path = tmp_path / "views.pt"
    torch.save(state, path)
    expected, found = torch.load(path, weights_only=True), read_state_dict(path).state_dict
    for key, value in expected.items():
        assert torch.equal(found[key], value)
        assert found[key].stride() == value.stride()
        assert found[key].storage_offset() == value.storage_offset()
    found["whole"][2, 3] = 7
    assert found["scalar"] == 7


def test_conjugated_tensors_are_never_read_as_their_elements(tmp_path):
    """The file holds the elements before conjugation; only torch's own code would turn them."""
    path = tmp_path / "conj.pt"
    state = {"plain": torch.ones(2), "turned": torch.tensor([1 + 2j]).conj()}
    torch.save(state, path)
    assert torch.load(path, weights_only=True)["turned"] == 1 - 2j
    with pytest.raises(CheckpointError, match="'turned' is no plain tensor"):
        read_state_dict(path)


class Quantity(torch.Tensor):
    """A tensor with a class of its own, whose operations are its own as well."""


def test_a_tensor_of_its_own_class_is_refused(tmp_path):
    path = tmp_path / "own.pt"
    torch.save({"w": torch.ones(2), "own": torch.ones(2).as_subclass(Quantity)}, path)
    with pytest.raises(CheckpointError, match=r"'own' is no plain tensor but .*Quantity"):
        read_state_dict(path)


def test_plain_tensors_of_torchs_own_classes(tmp_path):
    marked = nn.Parameter(torch.ones(2))
    marked.note = "an attribute"
    state = {"p": nn.Parameter(torch.rand(2)), "b": nn.Buffer(torch.rand(2)), "marked": marked}
    path = tmp_path / "classes.pt"
    torch.save(state, path)
    found = read_state_dict(path).state_dict
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.filterwarnings("ignore")  # sparse CSR is in beta, quantisation deprecated
@pytest.mark.parametrize(
    "special",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        lambda: torch.empty(3, device="meta"),
    ],
)
def test_tensors_that_are_more_than_their_elements_are_refused(tmp_path, special):
    path = tmp_path / "special.pt"
    torch.save({"plain": torch.ones(2), "odd": special()}, path)
    with pytest.raises(CheckpointError, match=r"'odd' is no plain tensor|are quantised") as caught:
        read_state_dict(path)
    assert "dequantize" in caught.value.advice
    assert read_container(path).refusal is not None


def test_numpy_values_beside_the_weights_do_no_harm(tmp_path):
    path = tmp_path / "numpy.pt"
    content = {"state_dict": {"w": torch.ones(2)}, "best": np.float64(3), "curve": np.ones(3)}
    torch.save(content, path)
    assert torch.equal(read_state_dict(path).state_dict["w"], torch.ones(2))


def test_safetensors_listing(tmp_path):
    path = tmp_path / "model.safetensors"
    state = {
        f"t{n}": torch.zeros(n, 2, dtype=dtype) for n, dtype in enumerate([*DTYPES, *ZIP_ONLY])
    }
    save_file(state, path, {"robaudit.normalization": "cifar10"})
    container = read_container(path)
    assert sorted(listing(container.tensors)) == sorted(reference(state))
    assert container.format == "safetensors"
    assert container.metadata == {"robaudit.normalization": "cifar10"}
    loaded = read_state_dict(path)
    assert {key: value.dtype for key, value in loaded.state_dict.items()} == {
        key: value.dtype for key, value in state.items()
    }


def test_the_hash_is_computed_when_asked(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"w": torch.zeros(2)}, path)
    assert read_container(path, hash=False).sha256 is None
    assert read_state_dict(path, hash=False).sha256 is None
    assert read_container(path, hash=True).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_findings_of_harmless_and_unknown_names():
    found = {f.full_name: f.severity for f in findings(b"(ccollections\nOrderedDict\ncmy\nNet\n.")}
    assert found == {"collections.OrderedDict": "harmless", "my.Net": "unknown"}
    assert list(found) == ["my.Net", "collections.OrderedDict"]


def test_findings_of_another_python(tmp_path):
    assert json.dumps(findings(b"")) == "[]"
