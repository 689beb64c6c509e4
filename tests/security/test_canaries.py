"""No way into the checkpoints room runs what is in a pickle."""

import os
import pickle
import subprocess
import sys

import pytest
import torch

from robaudit.checkpoints import findings, inspect_file, load, read_state_dict
from robaudit.errors import CheckpointError


def payloads(canary, call):
    write = f"open({str(canary)!r}, 'w').close()"
    touch = f"touch {canary}"
    yield "os.system", pickle.dumps(call(os.system, touch), 2)
    yield "eval", pickle.dumps(call(eval, write), 2)
    yield "exec", pickle.dumps(call(exec, write), 4)
    yield "subprocess", pickle.dumps({"w": call(subprocess.call, ["touch", str(canary)])}, 4)
    yield "protocol 0", f"cos\nsystem\n(S'{touch}'\ntR.".encode()
    yield "INST", f"(S'{touch}'\nios\nsystem\n.".encode()
    yield "OBJ", b"(cos\nsystem\n" + f"S'{touch}'\no.".encode()
    # The names are memoised, put on the stack again, and only then used.
    parts = [b"\x80\x04", b"\x8c\x02os\x94", b"\x8c\x06system\x94", b"00", b"h\x00h\x01\x93"]
    yield "STACK_GLOBAL", b"".join(parts) + f"(V{touch}\ntR.".encode()
    yield "import", b"c__builtin__\n__import__\n(Vos\ntR" + b"."
    yield "breaks off", f"cos\nsystem\n(S'{touch}'\ntR".encode()
    yield "extension", b"\x80\x02\x82\x01."
    # The weights are fine; the payload hides among the attributes of the dictionary.
    state = pickle.dumps({"a": 1}, 2)[:-1]
    yield "BUILD", state + b"}" + b"X\x01\x00\x00\x00ac" + f"os\nsystem\n(V{touch}\ntRsb.".encode()


NAMES = [name for name, _ in payloads("", lambda *_: 0)]


@pytest.fixture(params=NAMES)
def payload(request, canary, call):
    return dict(payloads(canary, call))[request.param]


def test_nothing_runs_and_loading_is_refused(payload, wrap, canary, save):
    path = save(wrap(payload))
    for reader in (read_state_dict, load):
        with pytest.raises(CheckpointError) as caught:
            reader(path)
        assert caught.value.exit_code == 4
        assert caught.value.message
    try:
        inspection = inspect_file(path)
    except CheckpointError:  # a pickle of protocol 0 that breaks off is no known format
        inspection = None
    if inspection is not None:
        assert inspection.refusal is not None
        assert any(f.severity != "harmless" for f in inspection.findings)
    assert not canary.exists()


@pytest.mark.parametrize("place", range(5))
def test_a_payload_in_any_of_the_five_pickles_of_a_legacy_file(place, canary, call, save):
    """Its result is dropped, so that the value left over is the right one."""
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {"a": 1}, []]
    bodies = [pickle.dumps(part, 2) for part in parts]
    payload = f"cos\nsystem\n(Vtouch {canary}\ntR0".encode()
    bodies[place] = bodies[place][:2] + payload + bodies[place][2:]
    path = save(b"".join(bodies))
    with pytest.raises(CheckpointError, match=r"could run code: it asks for os\.system"):
        read_state_dict(path)
    assert inspect_file(path).findings[0].full_name == "os.system"
    assert not canary.exists()


def test_the_payloads_are_live(canary, call):
    """Else the test above would show nothing."""
    pickle.loads(dict(payloads(canary, call))["STACK_GLOBAL"])
    assert canary.exists()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "extension"])
def test_findings_name_the_danger(name, canary, call):
    found = findings(dict(payloads(canary, call))[name])
    assert found[0].severity == "dangerous"
    assert found[0].full_name in {
        "os.system",
        "posix.system",
        "nt.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "subprocess.call",
    }


def test_a_name_made_at_run_time_is_dangerous():
    assert findings(b"\x80\x04]]\x93.")[0].full_name == "?.?"
    assert findings(b"\x80\x04]]\x93.")[0].severity == "dangerous"


def test_an_extension_code_is_found():
    assert [f.name for f in findings(b"\x80\x02\x82\x07.")] == ["extension 7"]


def test_a_payload_beside_real_weights_is_refused(canary, call, save):
    path = save({"state_dict": {"w": torch.ones(2)}, "extra": call(os.system, f"touch {canary}")})
    with pytest.raises(CheckpointError, match=r"could run code: it asks for (posix|nt)\.system"):
        read_state_dict(path)
    inspection = inspect_file(path)
    assert [info.name for info in inspection.tensors] == ["w"]
    assert inspection.refusal.message.endswith("system")
    assert not canary.exists()


def test_an_unknown_object_is_refused_and_the_advice_says_both_ways_out(save):
    with pytest.raises(
        CheckpointError, match=r"more than weights: .*torch\.optim\.\S+SGD"
    ) as caught:
        read_state_dict(save({"state_dict": torch.optim.SGD([torch.ones(1)], 0.1)}))
    assert "state_dict()" in caught.value.advice
    assert "--trust-pickle" in caught.value.advice
    assert "--sha256" in caught.value.advice


def test_an_object_in_numpys_name_is_inert(canary, call, save, zipped):
    """NumPy's own rebuilders are never called, so what they are given does not matter."""
    body = b"\x80\x02cnumpy.core.multiarray\nscalar\n(X\x01\x00\x00\x00aX\x01\x00\x00\x00btR."
    with pytest.raises(CheckpointError, match="no state dict"):
        read_state_dict(save(zipped(body)))


def test_a_sidecar_cannot_name_code(save, tmp_path, canary):
    path = save({"w": torch.ones(2)}, "net.pt")
    (tmp_path / "evil.py").write_text(f"open({str(canary)!r}, 'w').close()\n")
    (tmp_path / "net.pt.toml").write_text(f'architecture = "{tmp_path}/evil.py:build"\n')
    for reader in (load, inspect_file):
        with pytest.raises(CheckpointError, match="names code") as caught:
            reader(path)
        assert "--arch" in caught.value.advice
    assert not canary.exists()


def test_what_is_printed_about_a_file_cannot_move_the_cursor(save):
    with pytest.raises(CheckpointError) as caught:
        load(save({"\x1b[2Jweight": torch.ones(2), "b\nc": torch.ones(1)}))
    assert caught.value.message.isprintable()


def test_long_names_are_cut(save):
    with pytest.raises(CheckpointError) as caught:
        load(save({"w" * 5000: torch.ones(2)}))
    assert len(caught.value.message) < 500


def test_this_python_imports_nothing_for_a_finding():
    before = set(sys.modules)
    findings(b"cantigravity\nfly\n.")
    assert "antigravity" not in set(sys.modules) - before
