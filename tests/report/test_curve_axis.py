"""What tells checkpoints apart: the place of each on the curve's axis."""

import pytest

from robaudit.report.curve_axis import axis_of


def places(*names, recorded=None):
    return axis_of(names, recorded or [None] * len(names))


@pytest.mark.parametrize(
    ("names", "axis", "expected"),
    [
        (["epoch_1.pt", "epoch_10.pt", "epoch_2.pt"], "epoch", (1, 10, 2)),
        (["a/Epoch010.pth", "a/Epoch200.pth"], "epoch", (10, 200)),
        (["wrn28_10-ep5.pt", "wrn28_10-ep50.pt"], "epoch", (5, 50)),
        (["epoch=3-step=500.ckpt", "epoch=4-step=600.ckpt"], "epoch", (3, 4)),
        (["x-epoch-7-best.pt", "y_epoch_9.pt"], "epoch", (7, 9)),  # other names, both labelled
        (["epoch_5/model.pt", "epoch_6/model.pt"], "epoch", (5, 6)),
        (["out/checkpoint-500", "out/checkpoint-1000"], "checkpoint", (500, 1000)),
        (["run\\step_5.pt", "run\\step_10.pt"], "step", (5, 10)),
        (["eps_0.1.pt", "eps_0.25.pt"], "eps", (0.1, 0.25)),
        (["007.pt", "010.pt"], "number", (7, 10)),
    ],
)
def test_numbers_in_names(names, axis, expected):
    found = places(*names)
    assert (found.name, found.places, found.by) == (axis, expected, "name")


@pytest.mark.parametrize(
    "names",
    [
        ["best.pt", "last.pt"],
        ["epoch_5.pt", "best.pt"],  # one has none
        ["epoch_5.pt", "swa_5.pt"],  # other words
        ["epoch_5.pt", "epoch_05.pt"],  # the same number
        ["a/epoch_5.pt", "b/epoch_5.pt"],
        ["w16_seed0.pt", "w32_seed1.pt"],  # two numbers move
        ["robust.pt", "robust.pt"],
        ["peps_1.pt", "eps_2.pt"],
    ],
)
def test_otherwise_the_order_given(names):
    found = places(*names)
    assert (found.name, found.places, found.by) == ("position", (1, 2), "order")


def test_a_recorded_epoch_comes_after_a_labelled_name_and_before_a_bare_number():
    recorded = [40.0, 20.0]
    assert places("best.pt", "last.pt", recorded=recorded).by == "file"
    assert places("run1.pt", "run2.pt", recorded=recorded).places == (40, 20)
    assert places("epoch_1.pt", "epoch_2.pt", recorded=recorded).places == (1, 2)
    for incomplete in ([40.0, None], [40.0, 40.0]):
        assert places("best.pt", "last.pt", recorded=incomplete).by == "order"


def test_a_lone_checkpoint_has_the_first_place():
    assert places("epoch_5.pt").places == (1,)
