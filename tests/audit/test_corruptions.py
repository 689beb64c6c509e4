"""Accuracy under corruptions and the mean corruption error, against plain loops."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.corrupted import corrupted_digits, write_arrays
from support.linear import nearest_mean

from robaudit.audit import Plan, audit
from robaudit.audit.probes import Corruptions, Pgd
from robaudit.audit.reference_errors import ALEXNET, ReferenceErrors
from robaudit.data import load_examples
from robaudit.datasets import CORRUPTIONS, SEVERITIES
from robaudit.engine.raised import is_foreign
from robaudit.errors import NotMeasuredError, UsageError
from robaudit.statistics import clopper_pearson
from robaudit.statistics.corruption_error import corruption_error
from robaudit.types import ThreatModel

N = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_arrays(tmp_path_factory.mktemp("digits") / "digits-c")


@pytest.fixture(scope="module")
def net():
    return nearest_mean()


def answers(net, index, names=CORRUPTIONS, severities=SEVERITIES):
    """``(n, corruptions, severities)``, image by image."""
    y = load_examples("digits").y
    right = np.empty((len(index), len(names), len(severities)), bool)
    for c, name in enumerate(names):
        for s, severity in enumerate(severities):
            pixels = corrupted_digits(name, severity)
            for row, at in enumerate(index):
                image = torch.from_numpy(pixels[at]).permute(2, 0, 1)[None] / 255
                right[row, c, s] = int(net(image).argmax()) == int(y[at])
    return right


def run(net, folder, probe=None, examples=None, **how):
    examples = load_examples("digits", n=N) if examples is None else examples
    plan = Plan(probes=(probe or Corruptions(),))
    return audit(net, examples, None, plan, data_dir=folder.parent, **how)


@pytest.fixture(scope="module")
def done(net, folder):
    return run(net, folder)


@pytest.fixture(scope="module")
def right(net):
    return answers(net, range(N))


def test_accuracies_are_those_of_a_plain_loop(done, right):
    found = done.report.get("accuracy.corruptions")
    assert 0.2 < right.mean() < 0.95, "else this shows little"
    assert found.value == pytest.approx(right.mean())
    assert found.n == N
    rows = found.details["corruptions"]
    assert [row["name"] for row in rows] == list(CORRUPTIONS)
    for c, row in enumerate(rows):
        assert row["accuracy"] == pytest.approx(right[:, c].mean())
        assert [one["severity"] for one in row["severities"]] == list(SEVERITIES)
        for s, one in enumerate(row["severities"]):
            count = int(right[:, c, s].sum())
            limits = clopper_pearson(count, N, 0.95)
            assert one["accuracy"] == pytest.approx(count / N)
            assert (one["low"], one["high"]) == pytest.approx((limits.low, limits.high))
        kept = done.outcomes[f"test.corruptions.{row['name']}"]
        assert np.array_equal(kept.numpy(), right[:, c])
    shares = done.outcomes["test.accuracy.corruptions"].numpy()
    assert np.allclose(shares, right.reshape(N, -1).mean(1))
    assert done.report.threat is None
    assert done.report.get("accuracy.clean").value > 0.7
    assert done.report.get("corruptions.mce") is None


def test_the_interval_is_that_of_resampled_images(done, right):
    """All 75 versions of an image are drawn together; 4000 resamples give the error to 2 %."""
    rng = np.random.default_rng(0)
    shares = right.reshape(N, -1).mean(1)
    means = shares[rng.integers(N, size=(4000, N))].mean(1)
    found = done.report.get("accuracy.corruptions")
    assert found.standard_error == pytest.approx(means.std(), rel=0.06)
    assert found.standard_error == pytest.approx(shares.std(ddof=1) / N**0.5)
    low, high = np.quantile(means, (0.025, 0.975))
    # Clopper and Pearson's is the wider, as it keeps its level for every share.
    assert found.interval.low == pytest.approx(low, abs=0.02)
    assert found.interval.high == pytest.approx(high, abs=0.02)
    alone = clopper_pearson(right.sum(), right.size, 0.95)
    width, naive = found.interval.high - found.interval.low, alone.high - alone.low
    assert width > 3 * naive, "versions of one image are no independent examples"
    assert "clustered in 60 groups" in found.interval.method


def test_a_selection_and_a_sample_are_the_same_images_everywhere(net, folder):
    examples = load_examples("digits", n=25, sample_seed=3)
    probe = Corruptions(corruptions=("fog", "snow"), severities=(5, 2))
    found = run(net, folder, probe, examples).report.get("accuracy.corruptions")
    want = answers(net, examples.index.tolist(), ("snow", "fog"), (2, 5))
    assert found.value == pytest.approx(want.mean())
    assert found.settings["corruptions"] == ["snow", "fog"]
    assert found.settings["part"] == ": snow, fog; severity 2, 5"


def test_mean_corruption_error_by_hand(net, folder, right):
    errors = np.linspace(0.2, 0.9, 15)
    table = tuple(zip(CORRUPTIONS, ((e,) for e in errors.tolist()), strict=True))
    done = run(net, folder, Corruptions(reference=ReferenceErrors("old", table)))
    found = done.report.get("corruptions.mce")
    ratios = [(1 - right[:, c]).sum() / N / 5 / errors[c] for c in range(15)]
    assert found.value == pytest.approx(sum(ratios) / 15)
    assert [row["error"] for row in found.details["corruptions"]] == pytest.approx(ratios)
    single = done.outcomes["test.corruptions.mce"].numpy()
    assert found.value == pytest.approx(single.mean())
    assert found.standard_error == pytest.approx(single.std(ddof=1) / N**0.5)
    assert found.settings["reference"] == "old"


def test_errors_of_a_part_need_those_of_each_severity(net, folder):
    whole = ReferenceErrors("old", (("fog", (0.5,)),))
    few = Corruptions(corruptions=("fog",), severities=(5,), reference=whole)
    found = run(net, folder, few).report.get("corruptions.mce")
    assert (found.status, found.value) == ("skipped", None)
    assert "means over all five severities" in found.reason
    each = ReferenceErrors("old", (("fog", (0.1, 0.2, 0.3, 0.4, 0.5)),))
    assert each.means(("fog",), (2, 5)) == pytest.approx((0.35,))
    assert each.means(("fog",), SEVERITIES) == pytest.approx((0.3,))
    assert "no error for snow" in each.means(("snow",), SEVERITIES)


def test_the_published_errors_make_alexnet_one():
    """A network with AlexNet's own errors has mCE 1; the mean of its errors is 0.789."""
    errors = ALEXNET.means(CORRUPTIONS, SEVERITIES)
    assert sum(errors) / 15 == pytest.approx(0.789, abs=5e-4)
    right = np.zeros((1000, 15, 5), bool)
    for c, error in enumerate(errors):
        right[: round(1000 * (1 - error)), c] = True
    assert corruption_error(right, np.array(errors)).single.mean() == pytest.approx(1, abs=1e-3)


def test_mce_of_no_reference_error_is_refused():
    right = np.ones((2, 1, 5), bool)
    with pytest.raises(NotMeasuredError):
        corruption_error(right, np.zeros(1))
    with pytest.raises(UsageError):
        corruption_error(right, np.ones(2))


def test_results_do_not_depend_on_the_batch_nor_on_an_interruption(net, folder, done):
    class StoppedError(Exception):
        pass

    kept, made = {}, []

    def cache(name, compute):
        if name not in kept:
            if len(made) == 7:
                raise StoppedError
            kept[name] = compute()
            made.append(name)
        return kept[name]

    def again():
        return run(net, folder, cache=cache, batch_size=64).report.get("accuracy.corruptions")

    assert is_foreign(StoppedError())
    assert again().status == "failed"
    first, made = list(kept), []
    for _ in range(11):
        found, made[:] = again(), []
    assert list(kept)[:7] == first
    assert len(kept) == 75
    whole = done.report.get("accuracy.corruptions")
    assert (found.value, found.settings, found.details) == (
        whole.value, whole.settings, whole.details,
    )  # fmt: skip


def test_kept_pieces_of_other_images_are_not_taken(net, folder, tmp_path):
    kept = {}

    def cache(name, compute):
        return kept.setdefault(name, None) or kept.update({name: compute()}) or kept[name]

    probe = Corruptions(corruptions=("fog",))
    before = run(net, folder, probe, cache=cache)
    other = tmp_path / "digits-c"
    other.mkdir()
    np.save(other / "fog.npy", np.zeros_like(np.load(folder / "fog.npy")))
    np.save(other / "labels.npy", np.load(folder / "labels.npy"))
    after = run(net, other, probe, cache=cache)
    one, two = (done.report.get("accuracy.corruptions") for done in (before, after))
    assert len(kept) == 10
    assert two.value < one.value
    assert two.settings["data_sha256"] != one.settings["data_sha256"]


REFUSED = {
    "other images": (
        lambda digits: replace(digits, y=digits.y.roll(1)),
        "other labels than digits for",
    ),
    "another number": (
        lambda digits: replace(digits, population=400),
        "has 500 images of 1x8x8, digits 400",
    ),
    "training images": (lambda _: load_examples("digits", split="train", n=N), "split test alone"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_images_of_another_set_are_not_measured(net, folder, kind):
    change, reason = REFUSED[kind]
    found = run(net, folder, examples=change(load_examples("digits", n=N)))
    failed = found.report.measurements[-1]
    assert (failed.name, failed.status) == ("accuracy.corruptions", "failed")
    assert reason in failed.reason


def test_without_a_folder_the_others_are_measured_all_the_same(net, tmp_path):
    plan = Plan(probes=(Pgd(steps=1), Corruptions()))
    threat = ThreatModel("linf", 0.1)
    report = audit(net, load_examples("digits", n=8), threat, plan, data_dir=tmp_path).report
    assert report.get("accuracy.pgd").status == "ok"
    found = report.get("accuracy.corruptions")
    assert found.status == "failed"
    assert "no corrupted images of digits" in found.reason


def test_logits_that_are_not_finite_are_no_accuracy(folder):
    class Brittle(torch.nn.Module):
        """NaN wherever a pixel is none of the digits' seventeen grey levels."""

        def __init__(self):
            super().__init__()
            self.inner = nearest_mean()

        def forward(self, x):
            levels = 16 * x.flatten(1)
            off = (levels - levels.round()).abs().amax(1, keepdim=True) > 1e-3
            return torch.where(off, torch.nan, self.inner(x))

    found = run(Brittle(), folder).report.get("accuracy.corruptions")
    assert found.status == "failed"
    assert "not finite under gaussian_noise at severity 1" in found.reason
