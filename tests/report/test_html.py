"""The pages: everything on them, nothing in them that runs or loads, nothing unescaped."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from support.gates import HOSTILE as HOSTILE_GATE
from support.gates import decision, every_kind, verdict
from support.pages import HOSTILE, furnished, gallery, poisoned

from robaudit.errors import DataError
from robaudit.report import read_report, write_report
from robaudit.report.folder import fill_folder, fill_index
from robaudit.report.gallery import write_gallery
from robaudit.report.html import index_html, to_html, verdict_html
from robaudit.report.html.report_page import data_uri
from robaudit.report.landscape import Landscape, Losses, Model
from robaudit.report.landscape_npz import write_npz
from robaudit.report.pictures.palette import DARK, LIGHT
from robaudit.report.words import label
from robaudit.schema import Threat

SERIES = [f"series-{letter}" for letter in "abcde"]
VOID = {"meta", "link", "img", "br", "input", "hr"}


class Page(HTMLParser):
    """Elements with their attributes and texts; complains of tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.within: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.within.setdefault(self._open[-1] if self._open else "", []).append(data)
        if not {"style", "script"} & set(self._open):
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


@pytest.fixture
def full(report, tmp_path):
    """A report with every part, in a folder with gallery and landscape."""
    return furnished(report, tmp_path), tmp_path


@pytest.fixture
def hostile(full):
    return poisoned(full[0]), full[1]


def test_a_page_has_every_part_with_its_numbers(full):
    page = Page(to_html(*full))
    sections = {tag["id"] for tag in page.all("section") if "id" in tag}
    assert sections == {
        "accuracy",
        "attacks",
        "examples",
        "curvature",
        "flatness",
        "landscape",
        "measurements",
        "provenance",
    }
    for text in (
        "at_epoch_90",
        "84.2",
        "[81.8, 86.4]",
        "47.3",
        "[44.2, 50.",
        "layer1.0.conv1",
        "4/255",
        "apgd-ce",
        "98,765",
        "842 images attacked",
        "5 times",
        "example 40, broken",
        "example 41, resists",
        "97.3 %",
        "out of memory",
        "2 of 12 tensors have zero norm",
        "robaudit audit runs/digits/at_epoch_90.pt --data cifar10",
        "0123abcd",
        "2.9.1",
    ):
        assert text in page.text, text
    assert len(page.all("img")) == 9
    titles = page.within["title"]
    assert set(titles[1:]) == {
        "Accuracies and their intervals",
        "Accuracy within each radius",
        "What AutoAttack left standing, part after part",
        "Contribution of each layer to WCI",
        "Spectral density of the Hessian of the robust loss",
        "Robust loss before and after weight changes",
        "Flatness over the size of the weight change",
        "Loss landscape",
    }
    assert len(page.all("svg")) == 8


def test_every_measurement_and_its_settings_are_on_the_page(full):
    page = Page(to_html(*full))
    for measurement in full[0].measurements:
        assert label(measurement) in page.text


def test_a_report_of_one_number_is_a_page_without_empty_sections(report):
    only = report.model_copy(update={"measurements": report.measurements[:1], "train_data": None})
    page = Page(to_html(only))
    assert {tag.get("id") for tag in page.all("section")} == {
        None,
        "accuracy",
        "measurements",
        "provenance",
    }
    assert {tag["href"] for tag in page.all("a")} == {
        "#main",
        "#accuracy",
        "#measurements",
        "#provenance",
    }


def test_links_and_labels_lead_somewhere(full):
    page = Page(to_html(*full))
    ids = [tag["id"] for _, tag in page.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    for tag in page.all("a"):
        assert tag["href"].removeprefix("#") in ids
    for _, tag in page.tags:
        assert tag.get("aria-labelledby", ids[0]) in ids
    assert all(tag.get("alt") for tag in page.all("img"))
    assert all(tag.get("scope") for tag in page.all("th"))
    assert len(page.all("h1")) == 1
    assert page.all("html")[0]["lang"] == "en"


def pages(hostile):
    report, folder = hostile
    gate = verdict(
        source=HOSTILE,
        policy=HOSTILE_GATE,
        warnings=[HOSTILE],
        decisions=[decision(sentence=HOSTILE, metric=HOSTILE, suite=HOSTILE, reason=HOSTILE)],
    )
    yield to_html(report, folder)
    yield index_html([report, report], ["javascript:alert(1)", '"><script>'])
    yield verdict_html(gate)


def test_nothing_foreign_becomes_an_element_or_an_address(hostile):
    for html in pages(hostile):
        page = Page(html)
        assert len(page.all("script")) == 1
        assert "alert(1)" not in "".join(page.within["script"])
        assert "alert(1)" in page.text
        assert "{{7*7}}" in page.text
        for name, tag in page.tags:
            assert not any(key.startswith("on") or key == "style" for key in tag), (name, tag)
            for address in (tag.get("src"), tag.get("href"), tag.get("xlink:href")):
                assert address is None or address.startswith(
                    ("#", "data:image/png", "data:,", "./")
                )
        assert "\x1b" not in html
        assert "\u202e" not in html
        assert "[31m" not in html


def test_links_of_an_index_are_paths(report):
    page = Page(index_html([report, report], ["javascript:alert(1)", "a b/report.html"]))
    links = [tag["href"] for tag in page.all("a")][1:]
    assert links == ["./javascript%3Aalert%281%29", "./a%20b/report.html"]
    assert unquote(links[1]) == "./a b/report.html"


def test_the_policy_admits_the_pages_own_style_and_script_alone(hostile):
    for html in pages(hostile):
        policy = next(
            tag["content"]
            for tag in Page(html).all("meta")
            if tag.get("http-equiv") == "Content-Security-Policy"
        )
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        for kind, name in (("script", "script-src"), ("style", "style-src")):
            inline = re.findall(rf"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
            assert len(inline) == 1
            digest = base64.b64encode(hashlib.sha256(inline[0].encode()).digest()).decode()
            assert f"{name} 'sha256-{digest}'" in policy


def test_nothing_is_fetched(full):
    html = to_html(*full)
    for word in ("http:", "https:", "@import", "fetch(", "XMLHttpRequest", "eval("):
        assert word not in html
    assert not re.search(r"url\((?!#)", html)  # only to what is in the page itself


def test_every_colour_of_a_figure_is_a_variable_that_the_page_sets(full):
    html = to_html(*full)
    named = set(re.findall(r"var\(--([a-z-]+)\)", html[html.index("<main") :]))
    assert {"series-a", "series-b", "ink", "soft"} <= named <= set(LIGHT)
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        assert not re.search(r"(fill|stroke)=\"#", svg)
        assert "style=" not in svg  # the policy would forbid it


def test_the_largest_gallery_stays_under_three_megabytes(full):
    report, folder = full
    write_gallery(gallery((250, 250, 3), 2), folder / "gallery.npz")  # noise does not compress
    assert 1_000_000 < len(to_html(report, folder).encode()) < 3_000_000


def test_a_thousand_layers_stay_readable(report, change):
    row = report.get("wci").details["layers"][0]
    rows = [dict(row, name=f"layer{at}") for at in range(1000)]
    many = change("wci", details={**report.get("wci").details, "layers": rows})
    html = to_html(many)
    assert "layer999" in html
    assert len(html.encode()) < 1_500_000


def test_a_plane_is_drawn(report, tmp_path):
    s, t = np.linspace(-1, 1, 5), np.linspace(-2, 2, 3)
    losses = {"robust": Losses(1 + np.add.outer(t**2, s**2), np.zeros((3, 5)))}
    write_npz(
        Landscape({"title": "t"}, ("first", "second"), (s, t), (Model("m", losses),)),
        tmp_path / "landscape.npz",
    )
    page = Page(to_html(report, tmp_path))
    assert {"first", "second", "robust loss", "loss (nats)"} <= set(page.within["text"])


@pytest.mark.parametrize("name", ["landscape.npz", "gallery.npz"])
def test_a_broken_file_in_the_folder_is_named(report, tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=name):
        to_html(report, tmp_path)


def test_details_of_another_shape_are_left_out(report, change):
    change("accuracy.autoattack", details={"attacks": {"a": "b"}, "passes": 3, "diagnostics": []})
    change("hessian.largest", details={"eigenvalues": "x", "residuals": None})
    odd = change("flatness.average", details={"reference": "x", "sweep": [1, {"xi": None}]})
    Page(to_html(odd))


def test_an_index_sorts_by_numbers_and_says_what_is_not_comparable(report, rename):
    other = rename(report, "runs/b.pt", 0.5)
    page = Page(index_html([report, other], ["a/report.html", "b/report.html"]))
    assert "Not comparable" not in page.text
    sorts = [tag["data-sort"] for tag in page.all("td") if "data-sort" in tag]
    assert {"0.842", "0.421", "67.3"} <= set(sorts)
    assert page.all("table")[0]["class"] == "sortable"
    wider = other.model_copy(update={"threat": Threat(norm="linf", eps=0.5)})
    assert "Not comparable" in Page(index_html([report, wider])).text


def test_epochs_stand_in_order_with_their_curve(report, rename):
    runs = [rename(report, f"run/epoch_{epoch}.pt", scale) for epoch, scale in ((100, 0.5), (9, 1))]
    page = Page(index_html(runs, ["late/report.html", "early/report.html"]))
    assert [tag["href"] for tag in page.all("a")][1:] == [
        "./early/report.html",
        "./late/report.html",
    ]
    assert "Epoch" in page.text
    sorts = [tag["data-sort"] for tag in page.all("td") if "data-sort" in tag]
    assert [one for one in sorts if one in ("9.0", "100.0")] == ["9.0", "100.0"]
    assert {"Measures over the epoch", "Flatness over the epoch"} <= set(page.within["title"])
    assert {"PGD accuracy", "WCI", "epoch"} <= {text.strip() for text in page.within["text"]}
    other = rename(report, "b.pt")
    assert "Over the" not in Page(index_html([report, other])).text


def test_a_verdict_states_every_decision(hostile):
    page = Page(verdict_html(verdict(decisions=every_kind())))
    assert "Gate failed" in page.text
    for one in every_kind():
        assert one.sentence in page.text
    assert "out of memory" in page.text
    assert page.text.count("✗") == 2


def test_rules_that_failed_stand_first_and_a_drop_is_shown_as_a_drop():
    html = verdict_html(verdict(decisions=every_kind()))
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    words = re.findall(r"[✓✗?] (\w+)", table)
    assert words == ["failed", "failed", "inconclusive", "inconclusive", "passed"]
    # From 0.93 to 0.9, whose interval is [0.71, 0.96]: the drop is between -0.03 and 0.22.
    assert "0.030 [-0.030, 0.220], from 0.93 to 0.9" in table
    assert "accuracy.pgd drop &lt;= 0.02" in html[html.index("<svg") : html.index("</svg>")]


def test_folder_and_index_are_written(report, tmp_path):
    fill_folder(tmp_path / "a", report, {}, gallery())
    fill_index(tmp_path, [report], ["a"])
    page = Page((tmp_path / "a" / "report.html").read_text(encoding="utf-8"))
    assert "taken for 0" in page.text
    index = Page((tmp_path / "index.html").read_text(encoding="utf-8"))
    path = next(tag["href"] for tag in index.all("a") if tag["href"].startswith("./"))
    assert (tmp_path / path).is_file()


def test_a_page_from_a_read_report_is_the_same(full):
    report, folder = full
    write_report(report, folder / "report.json")
    assert to_html(read_report(folder), folder) == to_html(report, folder)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_pictures_are_read_by_another_library(shape):
    pixels = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    picture = base64.b64decode(data_uri(pixels).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), pixels)


def luminance(colour):
    """Relative luminance of sRGB (WCAG 2.2)."""
    shares = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_and_lines_stand_out_from_the_page(theme):
    least = {"ink": 7, "soft": 4.5, "accent": 4.5, "alarm": 4.5, **dict.fromkeys(SERIES, 3)}
    for name, ratio in least.items():
        dark, light = sorted((luminance(theme[name]), luminance(theme["paper"])))
        assert (light + 0.05) / (dark + 0.05) >= ratio, name


def test_json_details_with_nothing_known_do_not_break_a_page(report, change):
    odd = change("accuracy.pgd", settings=json.loads('{"a": [1, {"b": null}], "c": "<x>"}'))
    assert "&lt;x&gt;" in to_html(odd)
