"""Files that would do something if anything in them ran."""

import io
import pickle
import zipfile
from pathlib import Path

import pytest
import torch


def _legacy(body: bytes) -> bytes:
    """A pre-1.6 torch.save file whose object is the given pickle."""
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in head) + body + pickle.dumps([], 2)


def _zipped(body: bytes) -> bytes:
    """A torch.save zip file whose pickle is the given one."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", b"3\n")
    return buffer.getvalue()


class Call:
    """Pickles to a call."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


WRAPPERS = {"raw": bytes, "legacy": _legacy, "zip": _zipped}


@pytest.fixture(params=WRAPPERS)
def wrap(request):
    """Puts a pickle into each of the containers that carry one."""
    return WRAPPERS[request.param]


@pytest.fixture
def canary(tmp_path):
    """A path that exists as soon as hostile code ran."""
    return tmp_path / "canary"


@pytest.fixture
def call():
    return Call


@pytest.fixture
def legacy():
    return _legacy


@pytest.fixture
def zipped():
    return _zipped


@pytest.fixture
def save(tmp_path):
    """Writes bytes, or an object by torch.save, to a file."""

    def write(content, name="file.pt", **options) -> Path:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **options)
        return path

    return write
