"""The gadgets that malicious checkpoints are known to use: none runs, all are found."""

import base64
import builtins
import codecs
import functools
import importlib
import marshal
import operator
import os
import pickle
import runpy
import subprocess
import zipfile

import numpy as np
import pytest
import torch

from robaudit.checkpoints import findings, inspect_file, read_state_dict
from robaudit.errors import CheckpointError


def unicode(text):
    return b"X" + len(text).to_bytes(4, "little") + text.encode()


def asks(module, name, *arguments):
    """A pickle that calls a name with texts."""
    body = b"".join(map(unicode, arguments))
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + body + b"tR."


def gadgets(canary, call):
    touch, write = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    code = marshal.dumps(compile(write, "x", "exec"))
    inner = pickle.dumps(call(os.system, touch))
    yield "os.system", pickle.dumps(call(os.system, touch))
    yield "posix.system", asks("posix", "system", touch)
    yield "nt.system", asks("nt", "system", touch)
    yield "os.popen", asks("os", "popen", touch)
    yield "os.execv", pickle.dumps(call(os.execv, "/bin/touch", ["touch", str(canary)]))
    yield "subprocess.Popen", pickle.dumps(call(subprocess.Popen, ["touch", str(canary)]))
    yield "subprocess.getoutput", pickle.dumps(call(subprocess.getoutput, touch))
    yield "commands.getoutput", asks("commands", "getoutput", touch)
    yield "builtins.exec", pickle.dumps(call(exec, write))
    yield "builtins.eval", pickle.dumps(call(eval, write))
    yield "builtins.compile", pickle.dumps(call(compile, write, "x", "exec"))
    yield "builtins.open", pickle.dumps(call(open, str(canary), "w"))
    yield "builtins.getattr", asks("builtins", "getattr", "os", "system")
    yield "__builtin__.eval", asks("__builtin__", "eval", write)
    yield "builtins.map", asks("builtins", "map", "eval", write)
    yield "builtins.apply", asks("__builtin__", "apply", "eval", write)
    yield "importlib", pickle.dumps(call(importlib.import_module, "antigravity"))
    yield "runpy", pickle.dumps(call(runpy.run_path, str(canary)))
    yield "runpy._run_code", pickle.dumps(call(runpy._run_code, write, {}))
    yield "pip.main", asks("pip", "main", "install", "x")
    yield "pip._internal", asks("pip._internal", "main", "install")
    yield "torch.hub.load", pickle.dumps(call(torch.hub.load, "x/y", "z"))
    yield "torch.load", pickle.dumps(call(torch.load, str(canary)))
    yield "torch.jit.load", asks("torch.jit", "load", "x")
    yield "torch.ops", asks("torch.ops", "load_library", "x")
    yield "cpp_extension", asks("torch.utils.cpp_extension", "load_inline", "x")
    yield "_load_from_bytes", pickle.dumps(call(torch.storage._load_from_bytes, inner))
    yield "numpy.load", pickle.dumps(call(np.load, str(canary), None, True))
    yield "numpy runstring", asks("numpy.testing._private.utils", "runstring", write)
    yield "partial", pickle.dumps(functools.partial(os.system, touch))
    yield "partial call", pickle.dumps(call(functools.partial(os.system), touch))
    yield "reduce", pickle.dumps(call(functools.reduce, operator.add, [touch]))
    yield "attrgetter", pickle.dumps(operator.attrgetter("system"))
    yield "methodcaller", pickle.dumps(operator.methodcaller("system", touch))
    yield "marshal", pickle.dumps(call(marshal.loads, code))
    yield "FunctionType", asks("types", "FunctionType", "x")
    yield "CodeType", asks("types", "CodeType", "x")
    yield "pickle.loads", pickle.dumps(call(pickle.loads, inner))
    yield "_pickle.loads", asks("_pickle", "loads", "x")
    yield "dill", asks("dill", "loads", "x")
    yield "cloudpickle", asks("cloudpickle.cloudpickle", "_make_function", "x")
    yield "joblib", asks("joblib", "load", "x")
    yield "webbrowser", asks("webbrowser", "open", "x")
    yield "ctypes", asks("ctypes", "CDLL", "x")
    yield "pty", asks("pty", "spawn", touch)
    yield "code", asks("code", "interact", "x")
    yield "timeit", asks("timeit", "timeit", write)
    yield "pdb", asks("pdb", "run", write)
    yield "cProfile", asks("cProfile", "run", write)
    yield "asyncio", asks("asyncio.unix_events", "_UnixSubprocessTransport._start", "x")
    yield "requests", asks("requests.api", "get", "x")
    yield "socket", asks("socket", "create_connection", "x")
    yield "shutil", asks("shutil", "rmtree", "x")
    yield "urllib", asks("urllib.request", "urlopen", "x")
    yield "smtplib", asks("smtplib", "SMTP", "x")
    yield "ensurepip", asks("ensurepip", "_run_pip", "x")
    yield "sys.modules", asks("sys", "modules.get", "os")
    yield "dotted", b"\x80\x04\x8c\x05torch\x8c\x09os.system\x93(" + unicode(touch) + b"tR."
    yield "object.__subclasses__", asks("builtins", "object.__subclasses__")
    yield "extension", b"\x80\x02\x82\x01."
    yield (
        "codecs",
        b"\x80\x04"
        + unicode("o")
        + b"0"
        + codecs.encode(asks("os", "system", touch)[2:].decode("latin1"), "latin1"),
    )
    yield (
        "base64",
        asks("base64", "b64decode", base64.b64encode(inner).decode())[:-1]
        + (b"0" + asks("os", "system", touch)[2:]),
    )
    # The name is put together where a scan for opcodes cannot see it.
    yield (
        "memo",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940]0h\x00h\x01\x93(" + unicode(touch) + (b"tR."),
    )
    yield (
        "?",
        b"\x80\x04("
        + unicode("os")
        + b"t"
        + unicode("system")
        + b"\x93("
        + (unicode(touch) + b"tR."),
    )


NAMES = [name for name, _ in gadgets("canary", lambda *_: 0)]


@pytest.mark.parametrize("name", NAMES)
def test_a_gadget_never_runs_and_is_found(name, canary, call, wrap, save):
    payload = dict(gadgets(canary, call))[name]
    path = save(wrap(payload))
    with pytest.raises(CheckpointError) as caught:
        read_state_dict(path)
    assert caught.value.exit_code == 4
    seen = inspect_file(path)
    assert seen.refusal is not None
    assert seen.findings[0].severity == "dangerous"
    assert not canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_gadget_beside_weights_refuses_the_file(name, canary, call, save):
    payload = dict(gadgets(canary, call))[name]
    path = save({"state_dict": {"w": torch.ones(2, 2)}})
    with zipfile.ZipFile(path) as archive:
        records = [(info.filename, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for key, data in records:
            # The payload's value is dropped, and the honest object follows.
            spoiled = payload.removesuffix(b".") + b"0" + data[2:]
            archive.writestr(key, spoiled if key.endswith("data.pkl") else data)
    with pytest.raises(CheckpointError, match="could run code"):
        read_state_dict(path)
    assert [info.name for info in inspect_file(path).tensors] == ["w"]
    assert not canary.exists()


@pytest.mark.parametrize("name", NAMES)
def test_no_finding_is_made_harmless_by_its_company(name, canary, call):
    assert findings(dict(gadgets(canary, call))[name])[0].severity == "dangerous"


def test_harmless_names_cannot_be_reached_through():
    """Attributes of a harmless class are names of their own."""
    for name in ("OrderedDict.fromkeys.__globals__", "OrderedDict.__subclasses__"):
        found = findings(b"\x80\x04" + unicode("collections") + unicode(name) + b"\x93.")
        assert found[0].severity == "dangerous"


def test_this_interpreter_is_as_it_was(canary, call):
    before = dict(vars(builtins))
    for _, payload in gadgets(canary, call):
        findings(payload)
    assert vars(builtins) == before
    assert not canary.exists()
