"""Whatever happens to a file on its way, the answer is a CheckpointError or weights."""

import random
import warnings

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints import inspect_file, read_state_dict
from robaudit.errors import CheckpointError

ROUNDS = 150


@pytest.fixture(scope="module", params=["zip", "legacy", "safetensors"])
def honest(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / f"honest.{request.param}"
    state = {
        "conv.weight": torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)),
        "conv.bias": torch.zeros(3, dtype=torch.float16),
        "steps": torch.tensor(7),
    }
    if request.param == "safetensors":
        save_file(state, path, {"robaudit.normalization": "none"})
    else:
        whole = {"epoch": 3, "state_dict": state, "note": "text"}
        torch.save(whole, path, _use_new_zipfile_serialization=request.param == "zip")
    return path.read_bytes(), state


def survives(path):
    """Both readers, with nothing but a CheckpointError let through."""
    result = None
    for reader in (inspect_file, read_state_dict):
        result = refusal = None
        try:
            result = reader(path)
        except CheckpointError as error:
            refusal = error
        assert refusal is None or (refusal.exit_code == 4 and refusal.message.isprintable())
    return result


def damaged(data, kind, chance):
    if kind == "cut":
        return data[: chance.randrange(len(data))]
    if kind == "insert":
        place = chance.randrange(len(data))
        return data[:place] + chance.randbytes(chance.randrange(1, 9)) + data[place:]
    spoiled = bytearray(data)
    # The first bytes hold the pickle and the headers; the weights are most of the rest.
    end = len(data) if chance.random() < 0.3 else min(len(data), 1200)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(end)
        spoiled[place] ^= 1 << chance.randrange(8)
    return bytes(spoiled)


@pytest.mark.parametrize("kind", ["flip", "cut", "insert"])
def test_damage_never_raises_anything_else(honest, kind, tmp_path):
    data, _ = honest
    path = tmp_path / "spoiled.pt"
    chance = random.Random(f"{kind} {len(data)}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(ROUNDS):
            path.write_bytes(damaged(data, kind, chance))
            survives(path)


def test_a_file_cut_anywhere_is_refused(honest, tmp_path):
    data, _ = honest
    path = tmp_path / "cut.pt"
    for end in [*range(1, 40), *range(40, len(data), 61), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError):
            read_state_dict(path)


def test_no_single_flip_in_a_zip_changes_weights_unnoticed(honest, tmp_path):
    data, state = honest
    if not data.startswith(b"PK"):
        pytest.skip("only the zip format has checksums")
    path = tmp_path / "flipped.pt"
    chance = random.Random(1)
    for _ in range(ROUNDS):
        place = chance.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        loaded = survives(path)
        if loaded is not None:
            assert loaded.state_dict.keys() == state.keys()
            assert all(torch.equal(loaded.state_dict[key], state[key]) for key in state)


def test_random_bytes(tmp_path):
    path = tmp_path / "noise.pt"
    chance = random.Random(2)
    for start in (b"", b"\x80\x02", b"\x80\x04", b"PK\x03\x04", b"c", b"("):
        for _ in range(20):
            path.write_bytes(start + chance.randbytes(chance.randrange(1, 400)))
            assert survives(path) is None
