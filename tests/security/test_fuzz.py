"""Whatever happens to a file on its way, the answer is a CheckpointError or weights."""

import argparse
import io
import pathlib
import pickletools
import random
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robaudit.checkpoints import inspect_file, read_state_dict
from robaudit.errors import CheckpointError

ROUNDS = 300


CONTAINERS = "zip legacy safetensors module module-legacy training torchscript export older-export"


@pytest.fixture(scope="module", params=CONTAINERS.split())
def honest(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param) / f"honest.{request.param}"
    state = {
        "conv.weight": torch.randn(3, 2, 3, 3, generator=torch.Generator().manual_seed(0)),
        "conv.bias": torch.zeros(3, dtype=torch.float16),
        "steps": torch.tensor(7),
    }
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 2))
    if request.param in ("module", "module-legacy", "torchscript", "export"):
        state = network.eval().state_dict()
    match request.param:
        case "zip" | "legacy":
            whole = {"epoch": 3, "state_dict": state, "note": "text"}
            torch.save(whole, path, _use_new_zipfile_serialization=request.param == "zip")
        case "safetensors":
            save_file(state, path, {"robaudit.normalization": "none"})
        case "module" | "module-legacy":
            torch.save(network, path, _use_new_zipfile_serialization=request.param == "module")
        case "training":
            args = argparse.Namespace(lr=0.1, path=pathlib.Path("x"), best=np.float64(0.5))
            optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
            whole = {"args": args, "model": state, "ema": [state], "optimizer": optimizer}
            torch.save(whole, path, pickle_protocol=4)
        case "torchscript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # deprecated, but such files are about
                torch.jit.script(network).save(path)
        case "export":
            torch.export.save(torch.export.export(network, (torch.ones(1, 2, 3, 3),)), path)
        case "older-export":
            buffer = io.BytesIO()
            torch.save(state, buffer)
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("serialized_exported_program.json", b"{}")
                archive.writestr("serialized_state_dict.pt", buffer.getvalue())
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
    for end in [*range(1, 40), *range(40, len(data), max(61, len(data) // 60)), len(data) - 1]:
        path.write_bytes(data[:end])
        with pytest.raises(CheckpointError):
            read_state_dict(path)


def test_no_single_flip_in_a_zip_changes_weights_unnoticed(honest, tmp_path):
    data, state = honest
    if not data.startswith(b"PK") or b"serialized_state_dict" in data:
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


OPCODES = [opcode for opcode in pickletools.opcodes if opcode.name != "STOP"]
NAMES = """collections OrderedDict|torch._utils _rebuild_tensor_v2|torch FloatStorage|torch Size
torch._utils _rebuild_parameter|torch._tensor _rebuild_from_type_v2|builtins set|my Net|os system
_codecs encode|numpy.core.multiarray scalar|numpy dtype|collections defaultdict""".replace(
    "\n", "|"
)
WORDS = ["storage", "0", "cpu", "state_dict", "_modules", "_parameters", "_buffers", "w", "latin1"]


def argument(opcode, chance):
    """Bytes that the opcode can take for its argument."""
    if opcode.arg is None:
        return b""
    name = opcode.arg.name
    if name == "stringnl_noescape_pair":
        return chance.choice(NAMES.split("|")).replace(" ", "\n").encode() + b"\n"
    if name.endswith("nl") or "nl_" in name:
        return str(chance.randrange(5)).encode() + b"\n"
    word = chance.choice(WORDS).encode()
    for size, form in (("1", "<B"), ("4", "<L"), ("8", "<Q")):
        if name.endswith(size) and ("string" in name or "bytes" in name or "unicode" in name):
            return struct.pack(form, len(word)) + word
    if name == "long1":
        return b"\x01" + chance.randbytes(1)
    return {"uint1": b"%c" % chance.randrange(6), "uint2": b"\x02\x00", "float8": bytes(8)}.get(
        name, struct.pack("<L", chance.randrange(6))
    )


def program(chance):
    """A pickle of random opcodes, with those that build things more often than the others."""
    body = b""
    for _ in range(chance.randrange(1, 40)):
        opcode = chance.choice(OPCODES)
        if chance.random() < 0.5:
            body += chance.choice([b"}", b"]", b")", b"(", b"N", b"K\x02", b"\x94", b"h\x00"])
            body += chance.choice([b"X\x01\x00\x00\x00w", b"", b"", b""])
        body += opcode.code.encode("latin1") + argument(opcode, chance)
    return body + b"."


@pytest.mark.parametrize("seed", range(4))
def test_random_programs(seed, tmp_path, wrap):
    chance = random.Random(seed)
    path = tmp_path / "program.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            path.write_bytes(wrap(b"\x80\x04" + program(chance)))
            survives(path)


def test_random_calls_of_known_names_with_random_arguments(tmp_path, zipped):
    """Every way in which a modelled call can be given something that torch never gives it."""
    chance = random.Random(5)
    path = tmp_path / "calls.pt"
    pieces = [b"N", b"}", b"]", b")", b"K\x02", b"K\x02\x85", b"\x89", b"U\x01w", b"\x8f"]
    storage = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(600):
            body = b"\x80\x04}U\x0astate_dict}U\x01w"
            body += b"c" + chance.choice(NAMES.split("|")).replace(" ", "\n").encode() + b"\n("
            for _ in range(chance.randrange(9)):
                body += chance.choice([*pieces, storage, storage])
            body += chance.choice([b"tR", b"t\x81", b"tR}b", b"tRK\x01a", b"tR}U\x01aNsb"])
            path.write_bytes(zipped(body + b"ss."))
            survives(path)
