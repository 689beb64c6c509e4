"""Protocols of flatness: how hard each side is attacked, by robaudit and as published."""

from __future__ import annotations

from typing import Literal

from robaudit.errors import UsageError
from robaudit.types import ThreatModel

Protocol = Literal["default", "stutz2021", "stutz2021-text"]

# Stutz, Hein & Schiele, sec. 4: ten restarts for the robust loss; steps of 0.007 at eps 8/255.
REFERENCE_RESTARTS = 10
STUTZ_STEP_OVER_EPS = 0.007 * 255 / 8
# Images per step of the published code, in the order of the set.
STUTZ_BATCH = 128


def reference_restarts(protocol: Protocol, restarts: int) -> int:
    """Random starts for the unperturbed network; the perturbed one gets ``restarts``.

    Raises:
        UsageError: restarts that the published protocol does not have.
    """
    if protocol == "default":
        return restarts
    if restarts != 1:
        raise UsageError(
            f"the protocol {protocol} attacks perturbed networks once, not {restarts} times",
            "Leave the restarts out, or the protocol.",
        )
    return REFERENCE_RESTARTS


def step_of(protocol: Protocol, threat: ThreatModel | None, step_size: float | None) -> float:
    """The step size of PGD: the given one, else the protocol's."""
    if step_size is not None or threat is None:
        return step_size or 0.0
    return threat.eps * (0.25 if protocol == "default" else STUTZ_STEP_OVER_EPS)


def check_xi(xi: float, case: str, usual: float) -> None:
    """Refuse a relative radius that is no positive number, and name the flatness paper's."""
    if not 0 < xi < float("inf"):
        raise UsageError(
            f"xi of {case} flatness must be a positive number, not {xi:g}",
            f"The flatness paper uses {usual:g}.",
        )
