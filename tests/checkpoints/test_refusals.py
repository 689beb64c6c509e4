"""What is no checkpoint is refused with a message that says what it is, and exit code 4."""

import gzip
import io
import json
import os
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from robaudit.checkpoints import inspect_file, load, read_container, read_state_dict
from robaudit.errors import CheckpointError


@pytest.fixture(params=[read_container, read_state_dict, load, inspect_file])
def reader(request):
    return request.param


def refusal(reader, path):
    with pytest.raises(CheckpointError) as caught:
        reader(path)
    assert caught.value.exit_code == 4
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def test_no_such_file(reader, tmp_path):
    assert "no such file" in refusal(reader, tmp_path / "absent.pt")


def test_a_directory(reader, tmp_path):
    assert "is a directory" in refusal(reader, tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_waited_for(reader, tmp_path):
    os.mkfifo(tmp_path / "pipe.pt")
    assert "not a regular file" in refusal(reader, tmp_path / "pipe.pt")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_state_dict(tmp_path / "pipe.pt", sha256="0" * 64)


HTML = b"\n  <!DOCTYPE html><html><body>404</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (HTML, "HTML page, probably an error page saved by a download"),
        (b"<?xml version='1.0'?><html>", "HTML page"),
        (LFS, "Git LFS pointer"),
        ("Zugriff verweigert: für Fremde".encode(), "text file"),
        (b'{"error": "not found"}', "text file"),
        (("é" * 5000).encode(), "text file"),
        (gzip.compress(b"weights", mtime=0), "gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "HDF5"),
        (b"\x93NUMPY" + bytes(20), "NumPy"),
        (bytes(range(200, 256)) * 3, "no checkpoint in a known format"),
        (bytes(100), "no checkpoint in a known format"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut off"),
        (b"\x80\x02}q\x00X\x03", "damaged"),
        (b"\x80", "no checkpoint in a known format"),
    ],
)
@pytest.mark.parametrize("name", ["net.pt", "net.model"])
def test_what_is_no_checkpoint(reader, tmp_path, content, says, name):
    path = tmp_path / name
    path.write_bytes(content)
    assert says in refusal(reader, path)


@pytest.mark.parametrize("content", [HTML, LFS])
def test_downloads_gone_wrong_are_named_under_safetensors_names_too(reader, tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert "damaged" not in refusal(reader, path)


def test_a_zip_of_something_else(reader, tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x")
    assert "zip archive, but not one that torch.save writes" in refusal(reader, path)


def test_an_empty_zip(reader, tmp_path):
    path = tmp_path / "none.pt"
    zipfile.ZipFile(path, "w").close()
    assert "not one that torch.save writes" in refusal(reader, path)


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_off_downloads(reader, tmp_path, zipped):
    path = tmp_path / "cut.pt"
    torch.save({"w": torch.randn(500)}, path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[:-300])
    assert "damaged or cut off" in refusal(reader, path)


def test_cut_off_safetensors(reader, tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file({"w": torch.randn(500)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "damaged" in refusal(reader, path)


# Files that are whole, but no weights: inspect shows them, loading refuses.
def whole_but_refused(path, says, format):
    for reader in (read_state_dict, load):
        assert says in refusal(reader, path)
    for reader in (read_container, inspect_file):
        seen = reader(path)
        assert seen.format == format
        assert says in seen.refusal.message


def test_torchscript(tmp_path):
    path = tmp_path / "script.pt"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for record in ("data.pkl", "constants.pkl", "code/net.py"):
            archive.writestr(f"script/{record}", b"\x80\x02).")
    path.write_bytes(buffer.getvalue())
    whole_but_refused(path, "TorchScript", "torchscript")


def test_a_plain_pickle(tmp_path):
    path = tmp_path / "plain.pt"
    path.write_bytes(b"\x80\x02}X\x01\x00\x00\x00aK\x01s.")
    whole_but_refused(path, "no", "pickle")


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 3}, [], [{}], "text", {"state_dict": {}}, {"model": {"w": 1.0}}, None]
)
def test_no_tensors(tmp_path, content):
    path = tmp_path / "empty.pt"
    torch.save(content, path)
    whole_but_refused(path, "no state dict", "torch-zip")


def test_no_tensors_in_safetensors(tmp_path):
    path = tmp_path / "empty.safetensors"
    save_file({}, path)
    whole_but_refused(path, "no tensors", "safetensors")


def test_several_sets_of_tensors_under_unknown_names_are_not_guessed_among(tmp_path):
    path = tmp_path / "several.pt"
    torch.save({"one": {"w": torch.ones(2)}, "two": {"w": torch.zeros(2)}}, path)
    whole_but_refused(path, "holds 2 sets of tensors ('one', 'two')", "torch-zip")
    assert read_state_dict(path, member="two").state_dict["w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "content", [{"w": 1.5}, {"config.json": {}}, {"config.json": {"model_type": "vit"}}]
)
def test_a_directory_that_is_no_hugging_face_folder(reader, tmp_path, content):
    for name, text in content.items():
        if name == "config.json":
            (tmp_path / name).write_text(json.dumps(text))
    assert "is a directory without" in refusal(reader, tmp_path)


def test_a_file_of_a_big_endian_machine(reader, tmp_path):
    path = tmp_path / "big.pt"
    torch.save({"w": torch.ones(2)}, path)
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in records:
            archive.writestr(name, b"big" if name.endswith("byteorder") else data)
    assert "big-endian" in refusal(reader, path)
