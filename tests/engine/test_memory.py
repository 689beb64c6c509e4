"""Freed memory stays with the process, where the C library can be told so."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, torch
from robaudit.engine.memory import keep_freed_memory
x = torch.rand(2**23)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        x + 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
given_back = faults()
assert keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's own")
def test_pages_are_not_taken_anew():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    given_back, kept = map(int, done.stdout.split())
    assert given_back > 1000
    assert kept < given_back / 4  # a block may still have to be taken once
