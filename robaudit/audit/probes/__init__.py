"""The probes, one file each: settings, run, and the measures they give. Imports no torch.

A probe is found by being in a module here, or by an entry point of the group ``robaudit.probes``
of an installed package, whose value is a subclass of :class:`robaudit.audit.probe.Probe`.
"""

from __future__ import annotations

import pkgutil
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract

from robaudit.audit.probe import Probe
from robaudit.audit.probes.adaptive_average import AdaptiveAverage
from robaudit.audit.probes.adaptive_worst import AdaptiveWorst
from robaudit.audit.probes.alignment import Alignment
from robaudit.audit.probes.autoattack import AutoAttack
from robaudit.audit.probes.average import Average
from robaudit.audit.probes.calibration import Calibration
from robaudit.audit.probes.certified import Certified
from robaudit.audit.probes.classes import Classes
from robaudit.audit.probes.clean import Clean
from robaudit.audit.probes.corruptions import Corruptions
from robaudit.audit.probes.cw import Cw
from robaudit.audit.probes.distance import Distance
from robaudit.audit.probes.fast import Fast
from robaudit.audit.probes.fisher_rao import FisherRao
from robaudit.audit.probes.hessian import Hessian
from robaudit.audit.probes.input_gradient import InputGradient
from robaudit.audit.probes.linearity import Linearity
from robaudit.audit.probes.margins import Margins
from robaudit.audit.probes.path_norm import PathNorm
from robaudit.audit.probes.pgd import Pgd
from robaudit.audit.probes.relative_flatness import RelativeFlatness
from robaudit.audit.probes.replay import Replay
from robaudit.audit.probes.spectral_norms import SpectralNorms
from robaudit.audit.probes.square import Square
from robaudit.audit.probes.top_layer import TopLayer
from robaudit.audit.probes.transfer import Transfer
from robaudit.audit.probes.union import Union
from robaudit.audit.probes.wci import Bound, Wci
from robaudit.audit.probes.worst import Worst

# For callers; a probe is found without being listed here.
__all__ = [
    "AdaptiveAverage",
    "AdaptiveWorst",
    "Alignment",
    "AutoAttack",
    "Average",
    "Bound",
    "Calibration",
    "Certified",
    "Classes",
    "Clean",
    "Corruptions",
    "Cw",
    "Distance",
    "Fast",
    "FisherRao",
    "Hessian",
    "InputGradient",
    "Linearity",
    "Margins",
    "PathNorm",
    "Pgd",
    "RelativeFlatness",
    "Replay",
    "SpectralNorms",
    "Square",
    "TopLayer",
    "Transfer",
    "Union",
    "Wci",
    "Worst",
    "giving",
    "known",
    "named",
]

GROUP = "robaudit.probes"


@cache
def known() -> tuple[type[Probe], ...]:
    """Every probe: those of this package, then those of entry points.

    An entry point that does not give a probe, or one whose measures are another's, is left out
    with a warning.
    """
    found = [probe for module in pkgutil.iter_modules(__path__) for probe in _inside(module.name)]
    taken = {row.name: row for probe in found for row in probe.measures}
    for point in entry_points(group=GROUP):
        probe = _loaded(point)
        if probe is None:
            continue
        other = [row.name for row in probe.measures if taken.setdefault(row.name, row) != row]
        if other:
            _left_out(point, f"it describes {', '.join(other)} in another way")
        else:
            found.append(probe)
    return tuple(found)


def named(name: str) -> type[Probe]:
    """The probe of that name.

    Raises:
        KeyError: there is none.
    """
    return {probe.name: probe for probe in known()}[name]


def giving(measure: str) -> type[Probe]:
    """The first probe that gives a measure.

    Raises:
        KeyError: there is none.
    """
    for probe in known():
        if any(row.name == measure for row in probe.measures):
            return probe
    raise KeyError(measure)


def _inside(name: str) -> Iterator[type[Probe]]:
    module = import_module(f"{__name__}.{name}")
    for value in vars(module).values():
        own = isinstance(value, type) and value.__module__ == module.__name__
        if own and issubclass(value, Probe) and not isabstract(value):
            yield value


def _loaded(point: EntryPoint) -> type[Probe] | None:
    # Code of another package: whatever it raises must not end a command that does not need it.
    try:
        found = point.load()
        if isinstance(found, type) and issubclass(found, Probe) and found.name and found.measures:
            return found
        _left_out(point, "it is no subclass of robaudit.audit.probe.Probe with name and measures")
    except Exception as error:
        _left_out(point, f"{type(error).__name__}: {error}")
    return None


def _left_out(point: EntryPoint, reason: str) -> None:
    text = f"the probe {point.name!r} ({point.value}) is left out: {reason}"
    warnings.warn(text, RuntimeWarning, stacklevel=2)
