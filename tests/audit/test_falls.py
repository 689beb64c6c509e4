"""A fall from one attack to a better one, in audits and in gates."""

import pytest

from robaudit.audit.doubts import falls
from robaudit.schema import Measurement


def measured(**values):
    return [
        Measurement(name=f"accuracy.{name}", value=value, n=100) for name, value in values.items()
    ] + [Measurement(name="loss.robust", value=1.0, n=100)]


@pytest.mark.parametrize(
    ("values", "doubted"),
    [
        ({"pgd": 0.6, "fast": 0.55}, set()),
        ({"pgd": 0.6, "fast": 0.54}, {"accuracy.pgd", "loss.robust"}),
        ({"pgd": 0.6, "cw": 0.58, "autoattack": 0.54}, {"accuracy.pgd", "loss.robust"}),
        ({"pgd": 0.6, "fast": 0.58, "autoattack": 0.51}, {
            "accuracy.pgd", "accuracy.fast", "loss.robust"}),
        ({"cw": 0.6, "fast": 0.5}, set()),
        ({"fast": 0.12, "pgd": 0.1}, set()),
        ({"fast": 0.13, "pgd": 0.1}, {"accuracy.fast"}),
        ({"pgd": 0.1, "fast": 0.1, "autoattack": 0.14}, {"accuracy.autoattack"}),
    ],
)  # fmt: skip
def test_five_points_doubt_the_weaker_attack_and_three_images_the_better_one(values, doubted):
    found = falls(measured(**values))
    assert {m.name for m in found if m.doubts} == doubted


def test_three_images_are_chance():
    few = [m.model_copy(update={"n": 16}) for m in measured(pgd=4 / 16, fast=1 / 16)]
    assert not any(m.doubts for m in falls(few))
    few = [m.model_copy(update={"n": 16}) for m in measured(pgd=5 / 16, fast=1 / 16)]
    assert any(m.doubts for m in falls(few))


def test_other_examples_and_other_splits_are_not_compared():
    pgd, *others = measured(pgd=0.6, fast=0.4)
    assert falls([pgd.model_copy(update={"split": "train"}), *others])[0].doubts == []
    assert falls([pgd.model_copy(update={"n": 99}), *others])[0].doubts == []
