"""``robaudit certify``: a certified lower bound beside an attack's upper bound."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from robaudit.audit.plan import Plan
from robaudit.audit.probe import Probe
from robaudit.audit.probes import AutoAttack, Certified, Fast, Pgd
from robaudit.audit.probes.certified import CertifiedMethod
from robaudit.cli.measure import measure
from robaudit.cli.options import Checkpoints, Settings, with_settings
from robaudit.request import Spec

_UPPER: dict[str, Probe] = {"pgd": Pgd(), "fast": Fast(), "autoattack": AutoAttack(engine="native")}


class CertificateOptions(Spec):
    """How both ends are found, and how long that may take."""

    method: CertifiedMethod = Field(
        default="branch",
        description="crown: linear bounds. alpha: with their slopes optimised. branch: then branch "
        "and bound on each image that is left.",
    )
    budget: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="Seconds of branching an image at most."
    )
    splits: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="Branches an image at most; with a budget that is never used up, results do "
        "not depend on the machine. [default: no limit]",
    )
    radius: bool = Field(
        default=False,
        description="Also the median of the largest radius that is certified, by bisection.",
    )
    upper: Literal["pgd", "fast", "autoattack"] = Field(
        default="fast",
        description="The attack that gives the upper bound, before anything is certified.",
    )


@with_settings(omit=frozenset({"gap", "train_data", "samples"}))
def certify(
    checkpoints: Checkpoints, settings: Settings, how: Annotated[CertificateOptions, None]
) -> None:
    """Certified accuracy: the share of examples that no attack can break, by proof.

    [bold]robaudit certify ckpt.pt --data cifar10 --data-dir ~/data --eps 2/255[/bold]

    [bold]robaudit certify ckpt.pt --data mnist --eps 0.1 --method alpha --n 1000[/bold]

    An attack gives an upper bound on robust accuracy, a certificate a lower one: linear bounds of
    the network over the whole ball, cut with [0, 1], show that the label's logit stays the largest
    (CROWN, with optimised slopes, then branch and bound). Images that the attack breaks are not
    tried. The report says between which ends robust accuracy lies; an image that is neither
    certified nor broken is open: more budget may decide it.

    Networks of convolutions and linear layers with ReLU, tanh or sigmoid, batch norm, pooling and
    residual sums are certifiable, as large as those of verification benchmarks. Undefended networks
    end near 0 %. What cannot be certified, such as softmax attention or a WideResNet, is said
    within seconds, with exit code 3.

    The first 200 images are tried unless --n says otherwise. crown takes a second or a few for each
    of a small network, alpha ten times as long, branch up to --budget seconds for each that is
    still open. With --state an interrupted run goes on.
    """
    certified = Certified(how.method, how.budget, how.splits, how.radius)
    measure(checkpoints, Plan(n=200, probes=(_UPPER[how.upper], certified)), settings)
