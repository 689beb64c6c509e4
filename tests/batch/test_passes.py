"""The passes that a dry run shows are those that a run takes."""

import pytest

from robaudit import measures
from robaudit.audit import Plan, preset
from robaudit.audit.probes import AutoAttack, Pgd, Wci
from robaudit.batch.work import work
from robaudit.session import Session


@pytest.mark.parametrize("gap", [False, True])
def test_passes_are_those_of_the_run(job, tmp_path, monkeypatch, gap):
    """Counted in the network itself, whichever probe runs it and however.

    Whole tiles of examples, so that the network is given none for padding. The checks before an
    audit and the duplicates of the clean pass are not counted, and traces are a round number: a
    fifth more or less.
    """
    one = job("a.pt", n=256, gap=gap)
    taken = 0

    opened = Session.open

    def counted(*said):
        model = opened(*said)

        def forward(_, given, logits):
            nonlocal taken
            taken += len(given[0])
            if logits.requires_grad:
                logits.register_hook(backward)

        def backward(gradient):
            nonlocal taken
            taken += 2 * len(gradient)

        model.register_forward_hook(forward)
        return model

    monkeypatch.setattr(Session, "open", counted)
    list(work(one, tmp_path / "job", "cpu"))
    assert preset("quick").passes(256, 256 if gap else 0) == pytest.approx(taken, rel=0.2)


def test_an_attack_that_several_probes_need_is_counted_once():
    pgd = Pgd(steps=10)
    assert Plan(probes=(pgd,)).passes(8) == 8 * (1 + 1 + 10 * 3 + 1)
    shared = Plan(probes=(pgd, Wci(pgd))).passes(8) - Plan(probes=(pgd,)).passes(8)
    apart = Plan(probes=(pgd, Wci(Pgd(steps=9)))).passes(8) - Plan(probes=(pgd,)).passes(8)
    assert apart - shared == 8 * (1 + 9 * 3 + 1)


def test_autoattack_costs_what_the_registry_says():
    of_one = Plan(probes=(AutoAttack(),)).passes(1) - Plan().passes(1)
    assert of_one == measures.find("accuracy.autoattack").passes
