"""Help, inspect, schema and report start at once: they never import torch."""

import json
import os
import subprocess
import sys

from support.console import ROBUST, SAMPLES

from robaudit.cli import command

SCRIPT = """
import contextlib, io, json, sys
from robaudit.cli import command
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            command()(args=words, prog_name="robaudit")
        except SystemExit as leaving:
            assert not leaving.code, (words, leaving.code)
    assert len(out.getvalue()) > 10, words
    loaded = {"torch", "torchvision", "scipy"} & set(sys.modules)
    assert not loaded, (words, loaded)
    print("done")
"""


def test_commands_that_need_no_torch(audited):
    folder = str(audited[0])
    lines = [["--help"], ["--version"], ["schema"]]
    lines += [[name, "--help"] for name in command().commands]
    lines += [["inspect", str(path)] for path in (ROBUST, SAMPLES / "smooth.safetensors")]
    lines += [["inspect", "--json", "--tensors", str(ROBUST)]]
    formats = ("table", "json", "csv", "md", "html")
    lines += [["report", folder, "--format", name] for name in formats]
    lines += [["report", folder, folder], ["gate", "--init", folder]]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)], capture_output=True, text=True,
        timeout=300, env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"] * len(lines)


def test_a_refusal_of_the_options_needs_none_either(place):
    script = SCRIPT.replace("assert not leaving.code", "assert leaving.code == 2")
    script = script.replace("assert len(out.getvalue()) > 10", "assert not out.getvalue()")
    lines = [
        ["attack", str(ROBUST), "--config", "none.toml"],
        ["audit", str(ROBUST), "--preset", "nonsense"],
        ["report", "nowhere"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(lines)], capture_output=True, text=True,
        timeout=300, cwd=place, env={**os.environ, "PYTHONPATH": str(ROBUST.parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["done"] * len(lines)
