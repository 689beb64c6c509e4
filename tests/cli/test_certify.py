"""``robaudit certify``: both ends in every view, per-example outcomes, files, exit codes."""

import json
import re

import numpy as np
import pytest
import torch
from support.console import robaudit
from support.linear import nearest_mean, worst_margins

from robaudit.data import load_examples

N, EPS = 40, 0.1
SENTENCE = re.compile(
    r"Robust accuracy (lies between [\d.]+ % \(certified\) and [\d.]+ % \([\w-]+\) of these 40 "
    r"images; [\d.]+ % open|is exactly [\d.]+ % of these 40 images: they are certified, and all "
    r"others broken or misclassified)\."
)


@pytest.fixture
def certify(place):
    torch.save(nearest_mean().state_dict(), place / "means.pt")

    def of(*words, checkpoints=("means.pt",), arch="net.py:linear"):
        options = ("--arch", arch, "--normalize", "none", "--n", N, "--eps", EPS, "--quiet")
        return robaudit("certify", *checkpoints, *options, *words)

    return of


def measurements(text):
    return {m["name"]: m for m in json.loads(text)["measurements"]}


@pytest.mark.parametrize("method", ["crown", "alpha", "branch"])
def test_both_ends_stand_in_every_view_and_in_the_folder(certify, place, method):
    ran = certify("--method", method, "--budget", 1, "--radius", "--out", "out")
    assert ran.code == 0, ran.err
    page = (place / "out" / "report.html").read_text()
    views = {
        "table": ran.out,
        "md": (place / "out" / "report.md").read_text(),
        "html": re.sub(r"<[^>]+>", "", page),
    }
    for name, view in views.items():
        flat = " ".join(view.replace("\\", "").split())
        assert len(SENTENCE.findall(flat)) == 1, name
        assert "Certified accuracy" in flat
        assert "Median certified radius" in flat
    found = measurements((place / "out" / "report.json").read_text())
    certified, fast = found["accuracy.certified"], found["accuracy.fast"]
    assert certified["value"] <= fast["value"]
    assert certified["settings"]["method"] == method
    digits = load_examples("digits", n=N)
    exact = worst_margins(nearest_mean(), digits.x, digits.y, EPS) > 1e-6
    with np.load(place / "out" / "examples.npz") as arrays:
        assert np.array_equal(arrays["test.accuracy.certified"], exact.numpy())
        assert arrays["test.certified_lower"].dtype == np.float64
        lower = arrays["test.certified_lower"]
        assert np.array_equal(lower > 0, arrays["test.accuracy.certified"])
        assert (arrays["test.certified_radius"][exact.numpy()] >= EPS).all()
    again = robaudit("report", "out")
    assert SENTENCE.search(" ".join(again.out.split()))


def test_the_strongest_attack_of_the_report_is_the_upper_end(certify):
    ran = certify("--upper", "pgd", "--method", "crown")
    sentence = SENTENCE.search(" ".join(ran.out.split()))
    assert sentence
    assert "(PGD-20)" in sentence[0] or "exactly" in sentence[0]


def test_a_report_of_a_failed_certificate_is_written_and_the_code_is_3(certify, place):
    ran = certify("--out", "out", "--method", "crown", arch="net.py:softmax")
    assert ran.code == 3
    assert "Certified accuracy failed: not certifiable: " in " ".join(ran.out.split())
    found = measurements((place / "out" / "report.json").read_text())
    assert found["accuracy.certified"]["status"] == "failed"
    assert found["accuracy.fast"]["status"] == "ok"


def test_several_checkpoints_are_compared_by_it(certify, place):
    second = nearest_mean()
    second[1].bias.data.zero_()
    torch.save(second.state_dict(), place / "worse.pt")
    ran = certify("--method", "crown", "--out", "out", checkpoints=("means.pt", "worse.pt"))
    assert ran.code == 0, ran.err
    assert "Certif." in ran.out
    assert "Certified" in (place / "out" / "index.html").read_text()
    compared = robaudit("compare", "out/means", "out/worse")
    assert compared.code == 0
    assert "Certified accuracy" in compared.out


def test_an_interrupted_run_goes_on_from_its_state(certify, place, monkeypatch):
    import robaudit.certified

    first = certify("--method", "crown", "--state", "state", "--json")
    kept = [path.name for path in (place / "state").iterdir()]
    assert any(name.startswith("certified-") for name in kept)
    honest = robaudit.certified.certify

    def from_state_alone(*given, cache, **how):
        def never():
            raise AssertionError("it was there already")

        return honest(*given, cache=lambda name, compute: cache(name, never), **how)

    monkeypatch.setattr(robaudit.certified, "certify", from_state_alone)
    again = certify("--method", "crown", "--state", "state", "--json")
    one, other = (measurements(ran.out)["accuracy.certified"] for ran in (first, again))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_options_come_from_a_file(certify, place):
    (place / "robaudit.toml").write_text(
        '[certify]\nmethod = "crown"\nupper = "pgd"\n[gate]\ndata = "digits"\n'
    )
    found = measurements(certify("--config", "robaudit.toml", "--json").out)
    assert found["accuracy.certified"]["settings"] == {"method": "crown"}
    assert "accuracy.pgd" in found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "exact"), "crown"),
        (("--budget", "-1"), "--budget"),
        (("--splits", "-2"), "--splits"),
        (("--upper", "none"), "--upper"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(certify, words, said):
    ran = certify(*words)
    assert ran.code == 2
    assert said in ran.flat


def test_the_help_teaches(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    ran = robaudit("certify", "--help")
    text = " ".join(ran.out.split())
    for words in ("lower", "upper bound", "open", "not tried", "exit code 3", "--eps 2/255"):
        assert words in text
