"""The pages in a real browser: no console message, nothing wider than the screen, live controls."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.browser import CHROMIUM, watched
from support.gates import every_kind, verdict
from support.pages import HOSTILE, furnished, poisoned

from robaudit.report.html import index_html, to_html, verdict_html

WIDTHS = (375, 800, 1440)
LONG = "a_very_long_name_without_any_place_to_break_" * 4

# A page of frames; when all are there it writes what it saw of each into its own body.
WATCHER = """<!doctype html><title>watcher</title>
<body><script>
const frames = [];
for (const name of PAGES) for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width:${width}px;height:900px;border:0`;
  frame.src = name;
  document.body.append(frame);
  frames.push([name, width, frame]);
}
const texts = (root, query) => [...root.querySelectorAll(query)].map((one) => one.textContent);
addEventListener("load", () => {
  const seen = frames.map(([name, width, frame]) => {
    const inner = frame.contentDocument, root = inner.documentElement;
    const paper = () => frame.contentWindow.getComputedStyle(inner.body).backgroundColor;
    const before = paper();
    inner.getElementById("theme").click();
    const table = inner.querySelector("table.sortable");
    const column = 'tbody td:nth-child(3)';
    const buttons = table ? table.querySelectorAll("thead button") : [];
    const sorted = [];
    for (let press = 0; press < 2 && table; press++) {
      buttons[2].click();
      sorted.push([...table.querySelectorAll(column)].map((one) => Number(one.dataset.sort)));
    }
    return {
      name, width, wide: root.scrollWidth, title: inner.title, themes: [before, paper()], sorted,
      sizes: [...inner.images].map((one) => one.naturalWidth),
      sort: table && table.querySelector("th[aria-sort]").getAttribute("aria-sort"),
      copy: inner.getElementById("copy") ? !inner.getElementById("copy").hidden : null,
      font: frame.contentWindow.getComputedStyle(inner.querySelector("h1")).fontSize,
    };
  });
  document.body.dataset.seen = JSON.stringify(seen);
});
</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture
def seen(report, rename, folder):
    """What the browser saw of every page at every width, and all it had to say; made once."""
    kept = folder / "seen.json"
    if not kept.exists():
        full = furnished(report, folder)
        long = full.subject.model_copy(update={"source": f"runs/{LONG}.pt", "architecture": LONG})
        long_names = full.model_copy(update={"subject": long, "warnings": [LONG]})
        pages = {
            "report": to_html(full, folder),
            "hostile": to_html(poisoned(full), folder),
            "long": to_html(long_names, folder),
            "index": index_html([full, rename(full, "runs/b.pt", 0.5), long_names, poisoned(full)]),
            "verdict": verdict_html(verdict(decisions=every_kind(), warnings=[HOSTILE, LONG])),
        }
        kept.write_text(json.dumps(_watched(folder, pages)))
    return json.loads(kept.read_text())


def _watched(folder: Path, pages: dict[str, str]) -> dict[str, object]:
    for name, page in pages.items():
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    names = json.dumps([f"{name}.html" for name in pages])
    watcher = WATCHER.replace("PAGES", names).replace("WIDTHS", json.dumps(WIDTHS))
    (folder / "watcher.html").write_text(watcher, encoding="utf-8")
    frames, console = watched(folder / "watcher.html")
    return {"frames": frames, "console": console}


def test_no_page_has_anything_to_say_on_the_console(seen):
    assert seen["console"] == []


def test_no_page_is_wider_than_the_screen(seen):
    assert len(seen["frames"]) == 5 * len(WIDTHS)
    assert [f for f in seen["frames"] if f["wide"] > f["width"]] == []


def test_style_is_applied_and_pictures_are_decoded(seen):
    for frame in seen["frames"]:
        assert frame["font"] == ("32px" if frame["width"] > 640 else "25.6px")
        assert frame["sizes"] == ([8] * 9 if frame["name"][0] in "rhl" else [])


def test_the_switch_changes_between_light_and_dark(seen):
    for frame in seen["frames"]:
        assert sorted(frame["themes"]) == ["rgb(21, 24, 27)", "rgb(255, 255, 255)"]


def test_a_heading_sorts_its_column_both_ways(seen):
    for frame in seen["frames"]:
        if frame["name"] == "verdict.html":
            continue
        down, up = frame["sorted"]
        assert down == sorted(down, reverse=True)
        assert up == sorted(up)
        assert frame["sort"] == "ascending"
        assert len(set(down)) > 1


def test_the_command_can_be_copied(seen):
    for frame in seen["frames"]:
        assert frame["copy"] is (None if frame["name"] == "index.html" else True)
