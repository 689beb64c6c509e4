"""Small files that claim much, and files nested or long beyond reason: refused, and said why."""

import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.console import ROBUST, robaudit

from robaudit.checkpoints import inspect_file
from robaudit.checkpoints.files.reading import read_state_dict
from robaudit.data import load_examples
from robaudit.errors import CheckpointError, DataError, UsageError
from robaudit.outcomes import read_outcomes
from robaudit.report import read_report
from robaudit.report.gallery import read_gallery
from robaudit.report.landscape_npz import read_npz
from robaudit.toml_file import read_tables

DEEP = {
    "arrays": "a = " + "[" * 100_000 + "]" * 100_000,
    "tables": "a = " + "{a=" * 50_000 + "1" + "}" * 50_000,
    "as deep as Python still reads": "a = " + "[" * 200 + "]" * 200,
    "dots": ".".join(["a"] * 5000) + " = 1",
    "heading": "[" + ".".join(["a"] * 5000) + "]",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
def test_a_deeply_nested_policy_is_a_usage_error(tmp_path, text):
    path = tmp_path / "deep.toml"
    path.write_text(text)
    ran = robaudit("gate", ROBUST, "--policy", path)
    assert ran.code == 2
    assert "nested too deeply" in ran.flat
    assert len(ran.err) < 2000


COMMANDS = {
    "config": ["audit", ROBUST, "--config"],
    "manifest": ["batch", "run", "--out", "none"],
    "recipe": ["train", "--out", "none"],
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS.keys())
def test_so_is_every_other_toml_file(tmp_path, words):
    path = tmp_path / "deep.toml"
    path.write_text(DEEP["arrays"])
    ran = robaudit(*words, path)
    assert ran.code == 2
    assert "nested too deeply" in ran.flat


def test_a_toml_file_that_never_ends_is_refused(tmp_path):
    path = tmp_path / "long.toml"
    path.write_text("a = 1 #" + "x" * (5 << 20))
    with pytest.raises(UsageError, match="more than 4,194,304 bytes"):
        read_tables(path)


def test_a_statement_of_many_lines_is_not_read_again_for_each(tmp_path):
    """Line numbers were sought by reading a statement anew with each line of it."""
    path = tmp_path / "policy.toml"
    path.write_text("b = 2\na = [\n" + "1,\n" * 100_000 + "]\n")
    found = read_tables(path)
    assert len(found.content["a"]) == 100_000
    assert found.line(("b",)) == 1


# Reports


def base():
    measurement = {
        "name": "accuracy.pgd", "value": 0.5, "unit": "fraction", "n": 100, "standard_error": 0.05,
        "interval": {"low": 0.4, "high": 0.6, "level": 0.95, "method": "clopper-pearson"},
    }  # fmt: skip
    return {
        "schema_version": 1, "robaudit": "0.1.0",
        "subject": {
            "source": "a.pt", "sha256": None, "format": "torch-zip", "architecture": "cnn",
            "identified_by": "shapes", "normalization": "none", "parameters": 10,
        },
        "data": {"name": "d", "split": "test", "n": 100, "sha256": "ab", "classes": 10},
        "threat": {"norm": "linf", "eps": 0.1},
        "measurements": [measurement],
        "provenance": {
            "argv": ["robaudit"], "seed": 0, "started": "2026-01-01T00:00:00+00:00", "seconds": 1,
            "versions": {}, "device": "cpu", "precision": "fp32", "batch_size": None,
        },
    }  # fmt: skip


INTERVAL = {"low": 0.4, "high": 0.6, "level": 0.95, "method": "m"}
WRONG = {
    "accuracy of 7.5": {"value": 7.5},
    "negative accuracy": {"value": -0.1},
    "in nats": {"unit": "nats"},
    "negative n": {"n": -5},
    "absurd n": {"n": 10**30},
    "n of a half": {"n": 1.5},
    "interval upside down": {"interval": INTERVAL | {"low": 0.9, "high": 0.1}},
    "interval of percent": {"interval": INTERVAL | {"low": 40.0, "high": 60.0}},
    "level of 95": {"interval": INTERVAL | {"level": 95}},
    "negative error": {"standard_error": -0.1},
    "negative seconds": {"seconds": -1},
    "negative loss": {"name": "loss.robust", "unit": "nats", "value": -1.0},
    "gap of two": {"name": "gap.error", "split": "gap", "value": 2.0, "interval": None},
    "too large for a float": {"value": 10**400},
    "deep details": {"details": {"a": json.loads("[" * 100 + "]" * 100)}},
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_a_report_with_what_cannot_be_is_refused(tmp_path, change):
    content = base()
    path = tmp_path / "report.json"
    path.write_text(json.dumps(content))
    assert read_report(path).get("accuracy.pgd").value == 0.5
    content["measurements"][0] |= change
    path.write_text(json.dumps(content))
    for words in (["report", path], ["gate", "--init", path]):
        ran = robaudit(*words)
        assert ran.code == 4
        assert ran.out == ""
        assert "Traceback" not in ran.err
        assert len(ran.err) < 2000


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_is_none_is_refused(tmp_path, number):
    path = tmp_path / "report.json"
    path.write_text(json.dumps(base()).replace('"value": 0.5', f'"value": {number}'))
    with pytest.raises(DataError):
        read_report(path)


def test_json_nested_beyond_reason_is_refused(tmp_path):
    path = tmp_path / "report.json"
    path.write_text("[" * 100_000 + "]" * 100_000)
    with pytest.raises(DataError, match="nested too deeply"):
        read_report(path)


# Checkpoints

SMALL = torch.randn(4, 8)
CLAIMS = {
    "rows by stride zero": torch.randn(1, 64).expand(1 << 20, 64),
    "columns by stride zero": torch.randn(64, 1).expand(64, 1 << 20),
    "one number": torch.randn(()).expand(1 << 13, 1 << 10),
    "windows": torch.randn(1 << 14).as_strided((1 << 13, 1 << 13), (1, 1)),
}


def many_of_one():
    whole = torch.randn(1 << 17)
    return {f"layer{at}.weight": whole for at in range(100)}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kind", [*CLAIMS, "many of one"])
def test_tensors_that_claim_more_than_the_file_are_refused(tmp_path, kind, legacy):
    path = tmp_path / "claims.pt"
    state = many_of_one() if kind == "many of one" else {"fc.weight": CLAIMS[kind]}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 1 << 20
    found = inspect_file(path)
    assert "over and over" in found.refusal.message
    with pytest.raises(CheckpointError, match="over and over") as caught:
        read_state_dict(path)
    assert "contiguous" in caught.value.advice
    ran = robaudit("inspect", path)
    assert ran.code == 4


def test_shared_and_expanded_tensors_of_honest_sizes_are_read(tmp_path):
    path = tmp_path / "tied.pt"
    tied = torch.randn(300, 100)
    expanded = torch.arange(100).expand(4, 100)
    torch.save({"a.weight": tied, "b.weight": tied, "positions": expanded}, path)
    state = read_state_dict(path).state_dict
    assert torch.equal(state["b.weight"], tied)
    assert torch.equal(state["positions"], expanded)


def test_inspect_shortens_what_nobody_would_read(tmp_path):
    path = tmp_path / "long.safetensors"
    name = "layer." + "x" * 100_000
    save_file({name: SMALL}, path, {"note": "y" * 100_000})
    ran = robaudit("inspect", path)
    assert len(ran.out) < 10_000
    assert "100,006 characters" in " ".join(ran.out.split())
    told = robaudit("inspect", "--json", path)
    assert json.loads(told.out)["tensors"][0]["name"] == name


def test_a_long_member_is_shortened_too(tmp_path):
    path = tmp_path / "members.pt"
    torch.save({"m" * 50_000: {"fc.weight": SMALL}, "other": {"fc.weight": SMALL}}, path)
    ran = robaudit("inspect", path)
    assert len(ran.out) + len(ran.err) < 20_000


# Examples


def bomb(path, images, labels):
    np.savez_compressed(path, x=images, y=labels)
    return str(path)


def test_of_an_npz_no_more_is_unpacked_than_is_asked_for(tmp_path):
    zeros = np.zeros((3000, 3, 224, 224), dtype=np.uint8)
    zeros[:2] = 51
    path = bomb(tmp_path / "bomb.npz", zeros, np.zeros(3000, dtype=np.int64))
    del zeros
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    few = load_examples(path, n=3)
    assert few.x[:, 0, 0, 0].tolist() == pytest.approx([0.2, 0.2, 0])
    with pytest.raises(DataError, match="GiB in memory") as caught:
        load_examples(path)
    assert "--n" in caught.value.advice


def rewritten(path, shape):
    """The npz with another shape in the header of x."""
    arrays = zipfile.ZipFile(path)
    parts = {name: arrays.read(name) for name in arrays.namelist()}
    old = parts["x.npy"]
    start, end = old.index(b"'shape': ("), old.index(b"}")
    text = f"'shape': {shape}, ".encode().ljust(end - start)
    parts["x.npy"] = old[:start] + text + old[end:]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(name, data)


@pytest.mark.parametrize("shape", [(2, 1, 1 << 20, 1 << 20), (2, 1, 5, 5), (1 << 40, 1, 4, 4)])
def test_an_array_that_is_shorter_than_it_says_is_refused(tmp_path, shape):
    path = tmp_path / "data.npz"
    np.savez(path, x=np.zeros((2, 1, 4, 4), dtype=np.uint8), y=np.zeros(2, dtype=np.int64))
    rewritten(path, shape)
    with pytest.raises(DataError):
        load_examples(str(path), n=1)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_drawn_rows_are_those_of_the_array(tmp_path, save, order):
    x = np.random.default_rng(0).integers(0, 256, (50, 3, 5, 4), dtype=np.uint8)
    y = np.arange(50)
    save(tmp_path / "data.npz", x=np.asarray(x, order=order), y=y)
    drawn = load_examples(str(tmp_path / "data.npz"), n=7, sample_seed=3)
    assert torch.equal(drawn.x, torch.from_numpy(x[drawn.index.numpy()]).float() / 255)
    assert drawn.y.tolist() == drawn.index.tolist()
    save_file({"x": torch.from_numpy(x), "y": torch.from_numpy(y)}, tmp_path / "d.safetensors")
    same = load_examples(str(tmp_path / "d.safetensors"), n=7, sample_seed=3)
    assert same.sha256 == drawn.sha256


def test_a_changed_byte_is_found_by_the_check_sum(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (8, 1, 8, 8), dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x=x, y=np.zeros(8, dtype=np.int64))
    whole = bytearray(path.read_bytes())
    whole[whole.index(x.tobytes()[:16]) + 3] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataError, match="not a readable npz"):
        load_examples(str(path))


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path):
    """A PNG's head that claims 10 000 x 10 000 pixels, above Pillow's limit."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="not a readable image"):
        load_examples(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("name", ["examples.npz", "gallery.npz", "landscape.npz"])
def test_arrays_beside_a_report_that_unpack_to_far_more_are_refused(tmp_path, name):
    (tmp_path / "report.json").write_text(json.dumps(base()))
    np.savez_compressed(tmp_path / name, **{"test.index": np.zeros(300 << 20, dtype=np.uint8)})
    read = {
        "examples.npz": lambda: read_outcomes(tmp_path),
        "gallery.npz": lambda: read_gallery(tmp_path / name),
        "landscape.npz": lambda: read_npz(tmp_path / name),
    }[name]
    with pytest.raises(DataError, match="would take 314,572,9"):
        read()
