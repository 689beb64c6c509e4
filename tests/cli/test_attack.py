"""``robaudit attack``: several radii, other networks, saved examples, runs that were killed."""

import json
import os
import random
import shutil
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from support.console import ROBUST, robaudit
from support.processes import nursery

from robaudit.attacks import pgd
from robaudit.attacks.objectives import margin
from robaudit.audit.adversarial_file import read_adversarial
from robaudit.checkpoints import load
from robaudit.data import load_examples
from robaudit.errors import UsageError
from robaudit.request import Request
from robaudit.session import threat_of
from robaudit.types import ThreatModel

STANDARD = ROBUST.parent / "standard.pt"
QUICK = ("--n", 16, "--steps", 2, "--quiet")


def measured(ran, name="accuracy.pgd"):
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    return report, next(m for m in report["measurements"] if m["name"] == name)


@pytest.mark.parametrize(
    "words", [("--eps", "0.2,0.05"), ("--eps", "0.05", "--eps", "0.2"), ("--eps", "0,0.05,0.2,0.2")]
)
def test_several_radii_give_the_curve_and_the_largest_is_the_report_s(words):
    report, pgd = measured(robaudit("attack", ROBUST, *QUICK, *words, "--json"))
    assert report["threat"]["eps"] == 0.2
    assert [row["eps"] for row in pgd["details"]["curve"]] == [0.05, 0.2]


def test_radii_from_a_config_file(place):
    (place / "a.toml").write_text('eps = ["0.05", "8/255"]\n')
    _, pgd = measured(robaudit("attack", ROBUST, *QUICK, "--config", "a.toml", "--json"))
    assert [row["eps"] for row in pgd["details"]["curve"]] == [8 / 255, 0.05]


def test_the_curve_is_a_table_and_a_picture(place):
    ran = robaudit("attack", ROBUST, *QUICK, "--eps", "0.05,0.2", "--out", "out")
    assert "Accuracy within each radius" in ran.out
    assert (place / "out" / "robustness.svg").read_text().startswith("<?xml")
    assert "Accuracy within each radius" in (place / "out" / "report.md").read_text()


def test_saved_examples_are_verified_on_the_network_and_judged_on_another(place):
    saved = robaudit("attack", ROBUST, *QUICK, "--save-adv", "adv.safetensors", "--json")
    _, pgd = measured(saved)
    again = robaudit("attack", ROBUST, "--verify", "adv.safetensors", "--quiet", "--json")
    report, replayed = measured(again, "accuracy.transfer")
    assert replayed["value"] == pgd["value"]
    assert report["data"]["n"] == 16
    assert replayed["details"]["confirmed"] == replayed["details"]["claimed"]
    other = robaudit("attack", STANDARD, "--verify", "adv.safetensors", "--quiet", "--json")
    assert measured(other, "accuracy.transfer")[1]["value"] <= 1


def test_transfer_takes_a_surrogate_of_its_own():
    ran = robaudit(
        "attack", ROBUST, *QUICK, "--attack", "pgd,transfer", "--surrogate", STANDARD, "--json"
    )
    _, transfer = measured(ran, "accuracy.transfer")
    assert transfer["settings"]["surrogate"] == str(STANDARD)


def test_a_surrogate_s_cw_examples_transfer_and_so_do_those_of_a_file(place):
    """Both are what its own CW left behind, also where the surrogate held."""
    settings = ("--n", 40, "--steps", 5, "--quiet", "--eps", 0.2, "--json")
    made = ("--attack", "transfer", "--surrogate", STANDARD, "--surrogate-attack", "cw")
    _, direct = measured(robaudit("attack", ROBUST, *settings, *made), "accuracy.transfer")
    assert direct["settings"]["loss"] == "margin"
    saved = ("--attack", "cw", "--save-adv", "adv.safetensors")
    measured(robaudit("attack", STANDARD, *settings, *saved), "accuracy.cw")
    verify = robaudit("attack", ROBUST, "--verify", "adv.safetensors", "--quiet", "--json")
    _, filed = measured(verify, "accuracy.transfer")

    images = load_examples("digits", n=40)
    surrogate, judge = (load(path, device="cpu") for path in (STANDARD, ROBUST))
    adv = pgd(
        surrogate, images.x, images.y, ThreatModel("linf", 0.2), steps=5, loss="margin",
        index=images.index,
    )  # fmt: skip
    with torch.no_grad():
        right = (judge(images.x).argmax(1) == images.y) & (judge(adv.x).argmax(1) == images.y)
    assert direct["value"] == filed["value"] == pytest.approx(right.double().mean().item())


def test_what_stands_is_saved_where_cw_left_it(place):
    """The file once held clean images where the surrogate stood."""
    settings = ("--n", 40, "--steps", 5, "--quiet", "--eps", 0.1)
    ran = robaudit("attack", ROBUST, *settings, "--attack", "cw", "--save-adv", "a.safetensors")
    assert ran.code == 0, ran.err
    found, images = read_adversarial(place / "a.safetensors"), load_examples("digits", n=40)
    model = load(ROBUST, device="cpu")
    with torch.no_grad():
        before, after = (margin(model(x), images.y) for x in (images.x, found.x))
    assert int((~found.broken).sum()) > 10
    assert bool((after[~found.broken] > before[~found.broken] - 1e-5).all())
    assert bool((found.x != images.x).flatten(1).any(1)[~found.broken].all())


def test_clean_accuracy_needs_no_radius(place):
    """No radius is usual for a file of one's own, and none is used."""
    images = load_examples("digits", n=20)
    np.savez(place / "own.npz", x=images.x.numpy(), y=images.y.numpy())
    words = ("attack", ROBUST, "--data", "own.npz", "--attack", "clean", "--quiet")
    report, clean = measured(robaudit(*words, "--json", "--out", "out"), "accuracy.clean")
    assert report["threat"] is None
    assert clean["n"] == 20
    for format in ("table", "csv", "md"):
        ran = robaudit("report", "out", "--format", format)
        assert ran.code == 0, ran.err
    assert "none, nothing was attacked" in robaudit("report", "out").out
    assert "none, nothing was attacked" in (place / "out" / "report.html").read_text()
    assert "accuracy.clean" in robaudit("gate", "--init", "out").out


def test_a_norm_is_understood_in_capitals():
    report, _ = measured(robaudit("attack", ROBUST, *QUICK, "--norm", "Linf", "--json"))
    assert report["threat"]["norm"] == "linf"


def test_a_radius_of_the_whole_box_has_to_be_forced():
    refused = robaudit("attack", ROBUST, *QUICK, "--eps", 8)
    assert refused.code == 2
    assert "8/255" in refused.err
    assert "--force-eps" in refused.err
    report, _ = measured(robaudit("attack", ROBUST, *QUICK, "--eps", 8, "--force-eps", "--json"))
    assert report["threat"]["eps"] == 8
    assert robaudit("attack", ROBUST, *QUICK, "--norm", "l2", "--eps", 2).code == 0


@pytest.mark.parametrize(
    ("source", "settings", "threat"),
    [
        ("robustbench:cifar10/L2/Rony2019Decoupling", Request(), ("l2", 0.5)),
        ("robustbench:cifar10/Linf/Wong2020Fast", Request(data="cifar10"), ("linf", 8 / 255)),
        ("robustbench:imagenet/Linf/Wong2020Fast", Request(data="x.npz"), ("linf", 4 / 255)),
        ("robustbench:cifar10/L2/Rony2019Decoupling", Request(norm="linf"), ("linf", 8 / 255)),
        ("robustbench:cifar10/L2/Rony2019Decoupling", Request(eps="0.25"), ("l2", 0.25)),
        ("a.pt", Request(data="svhn", norm="l2"), ("l2", 0.5)),
    ],
)
def test_a_zoo_entry_brings_its_own_threat_model(source, settings, threat):
    """As RobustBench's leaderboards have it, unless told otherwise."""
    if settings.data == Request().data:
        settings = settings.changed(data="cifar10")
    assert threat_of(settings, [source]) == ThreatModel(*threat)


def test_zoo_entries_of_two_threat_models_are_asked_about():
    both = ["robustbench:cifar10/L2/Rony2019Decoupling", "robustbench:cifar10/Linf/Wong2020Fast"]
    with pytest.raises(UsageError, match="differ"):
        threat_of(Request(data="cifar10"), both)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--attack", "transfer"), ["--surrogate"]),
        (("--surrogate", STANDARD), ["--attack transfer"]),
        (("--attack", "pgd,transfer", "--surrogate", "none.pt"), ["none.pt"]),
        (("--save-adv", "adv.npz"), ["adv.npz", ".safetensors"]),
        (("--verify", "none.safetensors"), ["no such file"]),
        (("--verify", ROBUST), ["cannot be read"]),
        (("--verify", "none.safetensors", "--eps", "0.1"), ["--verify attacks nothing"]),
        (("--eps", "0.1,x"), ["'x'"]),
        (("--eps", "0.1,-1"), ["positive"]),
        (("--norm", "l1", "--data", "own.npz"), ["no usual l1 radius"]),
        (("--state", ROBUST), ["cannot keep state"]),
    ],
)
def test_what_cannot_be_meant(words, names, place):
    np.savez("own.npz", x=np.full((1, 8, 8), 0.5), y=np.zeros(1, int))
    ran = robaudit("attack", ROBUST, *QUICK, *words)
    assert ran.code in (2, 4), ran.err
    assert ran.out == ""
    assert 1 <= len(ran.err.splitlines()) <= 3  # the hint follows a blank line
    assert "internal error" not in ran.err
    for name in names:
        assert name in ran.err


def test_examples_that_cannot_be_written_cost_no_report(place):
    ran = robaudit("attack", ROBUST, *QUICK, "--save-adv", "none/adv.safetensors")
    assert ran.code == 2
    assert "cannot write" in ran.err
    assert "Robust accuracy" in ran.out


def test_a_state_of_another_configuration_is_refused(place):
    assert robaudit("attack", ROBUST, *QUICK, "--state", "state").code == 0
    for words in (("--seed", 1), ("--eps", 0.1), ("--n", 17)):
        ran = robaudit("attack", ROBUST, *QUICK, "--state", "state", *words)
        assert ran.code == 2
        assert "state of another run" in ran.err
    ran = robaudit("attack", STANDARD, *QUICK, "--state", "state")
    assert "weights" in ran.err
    assert robaudit("attack", ROBUST, *QUICK, "--state", "state", "--attack", "cw").code == 0


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_an_undisturbed_run(place):
    """Twenty kills of the process, each some way into its work; then a run to the end."""
    command = (
        "attack", ROBUST, "--n", 40, "--sample", "--steps", 3, "--data", "digits", "--split",
        "train", "--attack", "pgd,cw,fast", "--json", "--quiet", "--eps", "0.1,0.2", "--device",
        "cpu",
    )  # fmt: skip
    kept = ("--state", "state", "--save-adv", "adv.safetensors")
    draw = random.Random(0)
    with nursery(place, ROBUST.parents[1]) as processes:
        began = time.monotonic()
        processes.start("whole.json", *command)
        assert processes.wait() == 0, (place / "whole.json").read_text()
        lasts = time.monotonic() - began
        killed = 0
        for _ in range(60):
            child = processes.start("killed.txt", *command, *kept)
            time.sleep(draw.uniform(0, 0.5) * lasts)
            with suppress(ProcessLookupError):  # it has ended
                os.kill(child, signal.SIGKILL)
            status = processes.wait()
            assert status in (0, -signal.SIGKILL), (place / "killed.txt").read_text()
            killed += status != 0
            if killed == 20:
                break
            if status == 0:  # nothing is left to interrupt
                shutil.rmtree(place / "state")
        assert killed == 20
        processes.start("resumed.json", *command, *kept)
        assert processes.wait() == 0, (place / "resumed.json").read_text()
    numbers = [
        [(m["name"], m["value"], m["details"]) for m in json.loads(text)["measurements"]]
        for text in ((place / "whole.json").read_text(), (place / "resumed.json").read_text())
    ]
    assert numbers[0] == numbers[1]
    assert (place / "adv.safetensors").is_file()


def test_a_run_goes_on_with_the_threads_that_it_began_with(place):
    words = ("attack", ROBUST, *QUICK, "--state", "state")
    assert robaudit(*words).code == 0
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        ran = robaudit(*words, "--format", "json")
        assert json.loads(ran.out)["provenance"]["device"] == f"cpu ({before} threads)"
    finally:
        torch.set_num_threads(before)
