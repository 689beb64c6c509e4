"""The journal and the lock, after whatever a kill leaves behind."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from robaudit.batch import lock as locks
from robaudit.batch import log
from robaudit.batch.directory import create, find
from robaudit.batch.lock import holder, locked
from robaudit.errors import DataError, UsageError


def test_every_prefix_of_a_journal_is_read(tmp_path):
    path = tmp_path / "journal"
    for at in range(5):
        log.append(path, "done", key=str(at), text="é\n\u2028")
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        keys = [event["key"] for event in log.events(path)]
        assert keys == [str(at) for at in range(len(keys))]
        finished = whole[:size].count(b"\n")
        assert len(keys) in (finished, finished + 1)  # an end of line is no part of an event
        log.append(path, "done", key="last", text="")
        assert [event["key"] for event in log.events(path)] == [*keys, "last"]


def test_events_that_are_none_are_left_out(tmp_path):
    path = tmp_path / "journal"
    path.write_text('[]\n{"a": 1}\n\x00\x00\n{"event": 3}\n{"event": "done"}\n')
    assert log.events(path) == [{"event": "done"}]


def test_a_second_driver_is_refused(tmp_path):
    path = tmp_path / "lock"
    with locked(path):
        with pytest.raises(UsageError, match=rf"process {os.getpid()} on"), locked(path):
            pass
        assert holder(path).alive
    assert not list(tmp_path.iterdir())


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_lock(path, pid, host, age):
    path.write_text(json.dumps({"pid": pid, "host": host, "token": "theirs"}))
    os.utime(path, (time.time() - age,) * 2)


@pytest.mark.parametrize(
    ("pid", "host", "age", "alive"),
    [
        ("dead", "here", 0, False),
        ("ours", "here", 0, True),
        ("ours", "here", 1000, False),  # another program was given the dead driver's number
        ("dead", "elsewhere", 0, True),  # only its beat can be seen
        ("dead", "elsewhere", 1000, False),
    ],
)
def test_a_stale_lock_is_taken_over(tmp_path, pid, host, age, alive):
    path = tmp_path / "lock"
    number = dead_process() if pid == "dead" else os.getpid()
    write_lock(path, number, socket.gethostname() if host == "here" else "elsewhere", age)
    if alive:
        with pytest.raises(UsageError, match="is driven by process"), locked(path):
            pass
        assert holder(path).token == "theirs"
    else:
        with locked(path):
            assert holder(path).token != "theirs"
        assert not list(tmp_path.iterdir())


def test_a_damaged_lock_is_nobodys(tmp_path):
    (tmp_path / "lock").write_text("{")
    with locked(tmp_path / "lock"):
        pass


def test_a_lock_beats_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT", 0.02)
    path = tmp_path / "lock"
    with locked(path):
        os.utime(path, (0, 0))
        until = time.monotonic() + 30
        while holder(path).silent > 100 and time.monotonic() < until:
            time.sleep(0.01)
        assert holder(path).silent < 100


def test_only_its_own_lock_is_removed(tmp_path):
    path = tmp_path / "lock"
    write_lock(path, os.getpid(), "elsewhere", 0)
    locks._remove(path, "somebody else's")
    assert holder(path).token == "theirs"
    locks._remove(path, "theirs")
    assert not list(tmp_path.iterdir())


def test_a_folder_of_other_files_is_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="other files"):
        create(tmp_path)
    with pytest.raises(UsageError, match="no batch run"):
        find(tmp_path)
    with pytest.raises(UsageError, match="no batch run"):
        find(tmp_path / "thesis.tex")


def test_a_run_of_another_version_is_refused(tmp_path):
    run = create(tmp_path / "run").path / "run.json"
    said = json.loads(run.read_text())
    run.write_text(json.dumps({**said, "schema": 99}))
    for opened in (create, find):
        with pytest.raises(DataError, match=r"\(1, 99\), this one reads \(1, 1\)"):
            opened(tmp_path / "run")
    run.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        find(tmp_path / "run")
