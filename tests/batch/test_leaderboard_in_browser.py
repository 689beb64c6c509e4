"""The leaderboard's filter in a real browser; without script the page shows everything."""

import random

import pytest
from support.batch_runs import log_done, log_listed, report
from support.browser import CHROMIUM, watched

from robaudit.batch.directory import create
from robaudit.batch.leaderboard import leaderboards
from robaudit.batch.leaderboard_table import leaderboard_html

WATCHER = """<!doctype html><title>watcher</title><body>
<iframe src="leaderboard.html" style="width:1000px;height:900px"></iframe>
<iframe src="leaderboard.html" sandbox="allow-same-origin"></iframe>
<script>
addEventListener("load", () => {
  const [inner, scriptless] = [frames[0].document, frames[1].document];
  const names = (page) => [...page.querySelectorAll("tbody tr")]
    .filter((row) => row.checkVisibility()).map((row) => row.cells[1].textContent);
  const threat = inner.getElementById("threat"), model = inner.getElementById("model");
  const seen = (chosen, typed) => {
    threat.value = chosen; threat.dispatchEvent(new Event("change"));
    model.value = typed; model.dispatchEvent(new Event("input"));
    return [names(inner), inner.getElementById("left").textContent];
  };
  document.body.dataset.seen = JSON.stringify({
    options: [...threat.options].map((one) => one.textContent),
    all: seen("", ""), l2: seen("l2 0.5", ""), words: seen("", "WIDE  a"),
    none: seen("l2 0.5", "wide a x"), again: seen("", ""),
    scriptless: [names(scriptless), scriptless.getElementById("filter").checkVisibility()],
  });
});
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")
def test_models_are_shown_by_threat_and_name(tmp_path):
    directory = create(tmp_path / "run")
    threats = {"linf": {}, "l2": {"norm": "l2", "eps": 0.5}}
    for norm, said in threats.items():
        for name in ("wide_a", "wide_b", "<b>thin"):
            key = norm + name
            log_listed(directory, f"{name}.pt", key, **said)
            log_done(directory, key, report(name, 0.5, random.Random(1)))
    page = leaderboard_html(leaderboards(directory.state()))
    (tmp_path / "leaderboard.html").write_text(page, encoding="utf-8")
    (tmp_path / "watcher.html").write_text(WATCHER, encoding="utf-8")
    seen, console = watched(tmp_path / "watcher.html")
    one = ["<b>thin", "wide_a", "wide_b"]
    assert seen["options"] == ["all", "linf 8/255", "l2 0.5"]
    assert seen["all"] == seen["again"] == [[*one, *one], ""]
    assert seen["l2"] == [one, "3 shown"]
    assert seen["words"] == [["wide_a", "wide_a"], "2 shown"]
    assert seen["none"] == [[], "0 shown"]
    assert seen["scriptless"] == [[*one, *one], False]
    assert all("sandboxed" in line for line in console), console
