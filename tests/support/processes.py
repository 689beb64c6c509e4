"""Many runs of the program as processes of their own, without importing torch for each."""

import os
import subprocess
import sys
from contextlib import contextmanager

# Reads a line of arguments, forks a child that runs them, and writes its process number, then its
# exit status (negative for the signal that ended it).
_NURSERY = """
import os, sys, traceback
import robaudit.cli, robaudit.audit, robaudit.report
for line in sys.stdin:
    words = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if child == 0:
        sys.argv = ["robaudit", *words[1:]]
        sink = os.open(words[0], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1), os.dup2(sink, 2)
        code = 5
        try:
            robaudit.cli.main()
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Nursery:
    """One child at a time; ``start`` gives its process number, ``wait`` its exit status."""

    def __init__(self, process):
        self.process = process

    def start(self, output, *words):
        self.process.stdin.write("\t".join(str(word) for word in (output, *words)) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def wait(self):
        return int(self.process.stdout.readline())


@contextmanager
def nursery(place, checkout):
    process = subprocess.Popen(
        [sys.executable, "-c", _NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=place, env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        yield Nursery(process)
    finally:
        process.kill()
        process.communicate()
