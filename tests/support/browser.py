"""A page opened in headless Chromium, which says what it saw."""

import html
import json
import re
import shutil
import subprocess
import tempfile

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--allow-file-access-from-files", "--virtual-time-budget=10000",
    "--enable-logging=stderr", "--v=0", "--dump-dom",
]  # fmt: skip


def watched(page):
    """What the page wrote into its body's ``data-seen``, and the console's lines."""
    with tempfile.TemporaryDirectory() as profile:
        run = subprocess.run(
            [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    found = re.search(r'data-seen="([^"]*)"', run.stdout)
    assert found, run.stdout[:2000] + run.stderr[-2000:]
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(found[1])), console
