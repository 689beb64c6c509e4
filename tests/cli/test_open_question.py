"""A checkpoint of which it is not known what it is: refused, or by --guess marked everywhere."""

import csv
import io
import json

import numpy as np
import pytest
from support.console import robaudit

from robaudit.checkpoints import samples_dir
from robaudit.data import load_examples

FACTORY = """
from robaudit.checkpoints.architectures.residual_families import digits_resnet


def net():
    return digits_resnet()
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """So few images that near normalisations cannot be told apart."""
    folder = tmp_path_factory.mktemp("few")
    examples = load_examples("digits", n=24)
    np.savez(folder / "few.npz", x=examples.x.numpy(), y=examples.y.numpy())
    (folder / "nets.py").write_text(FACTORY)
    return folder


def words(few, *more):
    """Options that say the network, and not how its images were normalised."""
    arch = f"{few / 'nets.py'}:net"
    return ("--arch", arch, "--data", few / "few.npz", "--eps", 0.1, *more)


def sample(name="robust.pt"):
    return samples_dir() / name


def test_it_is_refused_with_a_table_and_the_options(few):
    done = robaudit("attack", sample(), *words(few, "--attack", "pgd"))
    assert done.code == 4
    assert "24 images do not tell which normalisation it was trained with" in done.err
    assert "PGD-10, linf" in done.err
    assert "none " in done.err
    assert "--normalize none|" in done.err
    assert "--guess" in done.err
    assert done.out == ""


@pytest.mark.slow
def test_the_answer_is_the_same_for_every_n(few):
    known = {
        json.loads(robaudit("attack", sample(), *words(few)[:2], "--attack", "pgd", "--eps", 0.1,
                            "--n", n, *more, "--json").out)["subject"]["normalization"]
        for n, more in ((8, ()), (60, ()), (30, ("--sample", "--seed", 3)))
    }  # fmt: skip
    assert known == {"none"}


@pytest.fixture(scope="module")
def guessed(few, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "report"
    done = robaudit("attack", sample(), *words(few, "--attack", "pgd", "--guess", "--out", out))
    assert done.code == 0, done.err
    return out, done


def test_a_guess_is_marked_in_every_format(guessed):
    out, done = guessed
    assert "robaudit: robust (assumed)" in done.out
    assert "assumed, by --guess" in done.out
    subject = json.loads((out / "report.json").read_text())["subject"]
    assert (subject["architecture_known"], subject["normalization_known"]) == ("said", "assumed")
    for format in ("md", "html", "table"):
        text = robaudit("report", out, "--format", format).out
        assert "robust (assumed)" in text.replace("\\", ""), format
    row = next(csv.DictReader(io.StringIO(robaudit("report", out, "--format", "csv").out)))
    assert row["normalization_known"] == "assumed"
    assert row["architecture_known"] == "said"


def test_a_policy_from_a_guess_says_so(guessed):
    out, _ = guessed
    policy = robaudit("gate", "--init", out).out
    assert "guess = true" in policy
    assert "nets.py:net" in policy


POLICY = """
[gate]
data = "{data}"
eps = 0.1
preset = "quick"
{more}
[gate.metrics."accuracy.pgd"]
min = 0.3
"""


def gated(few, tmp_path, more, *options):
    policy = tmp_path / "robaudit.toml"
    text = POLICY.format(data=few / "few.npz", more=more)
    policy.write_text(text)
    files = [word for name in ("junit", "sarif", "summary")
             for word in (f"--{name}", tmp_path / name)]  # fmt: skip
    done = robaudit("gate", sample(), "--policy", policy, *files, *options)
    return done, {name: (tmp_path / name).read_text() for name in ("junit", "sarif", "summary")}


def test_a_gate_never_decides_on_an_open_question(few, tmp_path):
    arch = f'arch = "{few / "nets.py"}:net"'
    done, texts = gated(few, tmp_path, arch, "--json")
    assert done.code == 3
    (decision,) = json.loads(done.out)["decisions"]
    assert decision["outcome"] == "inconclusive"
    assert "do not tell which normalisation" in decision["reason"]
    for name, text in texts.items():
        assert "do not tell which normalisation" in text, name
    assert "--normalize none|" in done.err


@pytest.mark.parametrize("more", ['normalize = "none"', "guess = true"])
def test_a_policy_may_say_it_or_ask_for_a_guess(few, tmp_path, more):
    arch = f'arch = "{few / "nets.py"}:net"'
    done, texts = gated(few, tmp_path, f"{arch}\n{more}")
    assert done.code in (0, 3), done.err
    assert "do not tell which" not in texts["summary"]
    assert ("assumed" in done.out) is ("guess" in more)
    assert ("assumed" in texts["junit"]) is ("guess" in more)


def test_a_curve_through_different_networks_is_refused():
    done = robaudit("wci", sample(), sample("smooth.safetensors"), "--n", 16, "--no-gap")
    assert done.code == 2
    assert "no curve through different networks" in done.err
    assert "--arch and --normalize" in done.err
