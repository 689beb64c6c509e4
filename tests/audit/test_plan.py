"""A preset with further probes."""

import pytest
from support import console

from robaudit.audit.plan import planned, preset
from robaudit.audit.probes import Cw
from robaudit.errors import UsageError
from robaudit.schema import Report


def test_a_further_probe_fits_the_plan_that_it_is_added_to():
    plan = planned("quick", ["cw", "distance"])
    assert plan.get(Cw).steps == 10  # as the preset's PGD
    assert planned("standard", ["cw"]) == preset("standard")
    assert [name for name, _ in plan.stages()] == [name for name, _ in preset("quick").stages()]


@pytest.mark.parametrize(
    ("name", "said"),
    [("fst", "did you mean 'fast'"), ("replay", "no default settings"), ("clean", "unknown")],
)
def test_what_cannot_be_added_is_said_with_what_can(name, said):
    with pytest.raises(UsageError, match=said) as refused:
        planned("quick", [name])
    there = refused.value.advice.removesuffix(".").partition(": ")[2].split(", ")
    assert {"certified", "cw", "distance", "fast"} <= set(there)
    assert there == sorted(there)


def test_the_command_measures_it():
    options = ["--preset", "quick", "--n", "4", "--no-gap", "--also", "fast", "--also", "cw"]
    ran = console.robaudit("audit", console.ROBUST, *options, "--json")
    names = {m.name for m in Report.model_validate_json(ran.out).measurements}
    assert {"accuracy.fast", "accuracy.cw"} <= names
