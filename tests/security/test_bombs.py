"""Small files that would take all memory or time: each is answered within 1 GB and 20 seconds.

The files are parsed without torch, so that a process with a limit on its memory can do it.
"""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import robaudit

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from robaudit.checkpoints import inspect_file
from robaudit.errors import CheckpointError
try:
    found = inspect_file(sys.argv[1])
    print("refused" if found.refusal else "read")
except CheckpointError as error:
    assert error.exit_code == 4 and error.message.isprintable() and len(error.message) < 1000
    print("refused")
assert "torch" not in sys.modules
"""

HEAD = b"\x80\x04"
DICT = b"ccollections\nOrderedDict\n"


def text(value):
    return b"X" + struct.pack("<L", len(value)) + value.encode()


def long(digits):
    return b"\x8b" + struct.pack("<l", digits) + b"\x7f" * digits


MODULE = b"cmy\nNet\n)\x81"


def module(children):
    parts = text("_parameters") + b"}" + text("_buffers") + b"}"
    return MODULE + b"}(" + parts + text("_modules") + b"}(" + children + b"uub"


def doubling_modules(levels):
    """Each module has the one before twice."""
    body = module(b"") + b"\x94"
    for level in range(levels):
        get = b"j" + struct.pack("<L", level)
        body += module(text("a") + get + text("b") + get) + b"\x94"
    return body


PICKLES = {
    "tuples that double": b")\x94" + b"".join(
        b"j" + struct.pack("<L", n) + b"j" + struct.pack("<L", n) + b"\x86\x94" for n in range(2000)
    ),
    "lists in lists": b"]" * 500_000 + b"a" * 499_999,
    "dictionaries in dictionaries": (b"}" + text("state_dict")) * 100_000 + b"}" + b"s" * 100_000,
    "calls in calls": b"cmy\nf\n\x94" + b")R\x85h\x00\x8c\x00\x86" * 200_000,
    "states in states": b"cmy\nA\n\x94" + b"h\x00)\x81" * 100_000 + b"b" * 99_999,
    "marks": b"(" * 300_000,
    "many sets": b"\x8f" * 800_000,
    "many objects": b"cmy\nf\n\x940" + b"h\x00)R" * 300_000,
    "copies of a dictionary": b"}(" + b"".join(
        b"J" + struct.pack("<l", n) + b"N" for n in range(100_000)
    ) + b"u\x94" + DICT + b"\x9400" + b"h\x01h\x00\x85R" * 100_000 + b"t",
    "a long tuple as a key": b"(" + b"N" * 200_000 + b"t\x94}\x94" + b"h\x01h\x00Ns0" * 100_000,
    "a long number as a key": long(10_000_000) + b"\x94}\x94" + b"h\x01h\x00Ns0" * 100_000,
    "many names": b"".join(b"cmy\nf%d\n" % n for n in range(60_000)) + b"N",
    "one name often": b"cmy\nf\n" * 200_000,
    "a list in itself": b"]\x94h\x00a",
    "a dictionary in itself": b"}\x94" + b"".join(
        text(key) + b"h\x00s" for key in ("state_dict", "model", "net", "ema", "mine", "last")
    ),
    "a tuple of itself by list": b"]\x94h\x00\x85ah\x00\x85",
    "a module in itself": MODULE + b"\x94}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
    + text("_modules") + b"}" + text("me") + b"h\x00sub",
    "modules that double": doubling_modules(60),
    "deep modules": doubling_modules(3000),
    "settings in itself": b"}\x94" + text("args") + b"h\x00s",
    "a huge memo number": b"Nr\xff\xff\xff\xffj\xff\xff\xff\xff",
    "many members": b"](" + (b"}" + text("state_dict") + b"}s") * 200_000 + b"e",
    "a number of many digits": b"I" + b"9" * 1_000_000 + b"\n",
    "a text that claims to be long": b"\x8d" + struct.pack("<Q", 255 << 20) + b"x",
    "a frame that claims to be long": b"\x95" + struct.pack("<Q", 1 << 62) + b"N",
}  # fmt: skip


def zipped(body, *more):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x/data.pkl", HEAD + body + b".")
        for name, data in more:
            archive.writestr(name, data)
    return buffer.getvalue()


def legacy(body):
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    head = b"".join(pickle.dumps(part, 2) for part in parts)
    return head + HEAD + body + b"." + pickle.dumps([], 2)


def answer(path):
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        capture_output=True,
        text=True,
        cwd=Path(robaudit.__file__).parents[1],
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.strip()


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name, save):
    container = legacy if len(name) % 2 else zipped
    assert answer(save(container(PICKLES[name]))) == "refused"


def directory_of_many():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n in range(60_000):
            archive.writestr(f"x/{n}", b"")
    return buffer.getvalue()


def overlapping():
    """Every record of the directory is the same megabyte of the file."""
    data = bytearray(zipped(b"}", ("x/data/0", bytes(1 << 20))))
    end = data.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<L", data, end + 16)[0]
    entry = bytes(data[data.rindex(b"PK\x01\x02") : end])
    more = b"".join(entry.replace(b"x/data/0", b"x/%06d" % n) for n in range(2000))
    data[end:end] = more
    end += len(more)
    struct.pack_into("<HH", data, end + 8, 2002, 2002)
    struct.pack_into("<L", data, end + 12, end - start)
    return bytes(data)


def compressed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(300 << 20))
    return buffer.getvalue()


def nested_exports(levels):
    inner = zipped(b"}")
    for _ in range(levels):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("serialized_state_dict.pt", inner)
        inner = buffer.getvalue()
    return inner


def header(content):
    return struct.pack("<Q", len(content)) + content


ARCHIVES = {
    "a directory of many records": directory_of_many,
    "overlapping records": overlapping,
    "a compressed pickle": compressed,
    "exports in exports": lambda: nested_exports(500),
    "a header of many names": lambda: header(
        b"{" + b",".join(b'"%d":{}' % n for n in range(500_000)) + b"}"
    ),
    "a deep header": lambda: header(b'{"a":' * 3_000_000),
    "a header of one large number": lambda: header(b'{"a":' + b"9" * 30_000_000 + b"}"),
    "a shape of many dimensions": lambda: (
        header(b'{"a":{"dtype":"F32","shape":[' + b"1," * 10_000_000 + b'1],"data_offsets":[0,4]}}')
        + bytes(4)
    ),
    "a shape of large dimensions": lambda: (
        header(
            json.dumps(
                {"a": {"dtype": "F32", "shape": [1 << 61] * 60, "data_offsets": [0, 4]}}
            ).encode()
        )
        + bytes(4)
    ),
    "paths out of the archive": lambda: zipped(
        b"}", ("../../x", b"x"), ("/etc/x", b"x"), ("x/../../y", b"x")
    ),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives(name, save, tmp_path):
    before = set(tmp_path.parent.iterdir())
    assert answer(save(ARCHIVES[name]())) == "refused"
    assert set(tmp_path.parent.iterdir()) == before


def test_a_module_of_honest_size_is_read_under_the_same_limits(save):
    """Else the limits above would prove nothing."""
    import torch

    assert answer(save(torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(500))))) == "read"
    assert answer(save({f"w{n}": torch.ones(2) for n in range(5000)})) == "read"
