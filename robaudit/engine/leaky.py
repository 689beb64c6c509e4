"""Gradients that units which are switched off let through in part."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from robaudit.engine.captured import Captured
from robaudit.engine.graph import nodes_behind
from robaudit.engine.logits import Forward
from robaudit.engine.runner import Runner

# Backward passes of what is constant on a half-line or outside an interval, by PyTorch's names.
_SWITCHES = frozenset(
    {
        "ReluBackward0",
        "ThresholdBackward0",
        "ClampBackward1",
        "ClampMinBackward0",
        "ClampMaxBackward0",
        "HardtanhBackward0",
    }
)


def leaky(runner: Runner, slope: float) -> Runner:
    """A runner of the same network in whose gradients each ReLU has a slope where it is off.

    Logits are the network's own: ``max(z, 0)`` is passed forward, and its derivative is taken as 1
    for ``z > 0`` and as ``slope`` elsewhere. So is that of clamps. What only an operation of the
    network's own computes, or a compiled script, keeps its gradient. Passes are counted apart, and
    recorded but not compiled.

    Args:
        runner: of any network.
        slope: in ``[0, 1]``; 0 gives the network's gradient, 1 takes ReLUs for the identity.

    Source: the derivative of a leaky ReLU (Maas, Hannun & Ng, "Rectifier nonlinearities improve
    neural network acoustic models", 2013) as that of a ReLU, a backward pass that differs from the
    forward pass as in Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of
    security", ICML 2018.
    """
    own, door = runner.network, runner.door

    def through(forward: Forward, x: Tensor) -> Tensor:
        logits = door(forward, x)
        _let_through(logits, slope)
        return logits

    network = Captured(own.forward, runner.device, own.precision, door=through)
    return Runner(network, runner.device, runner.batch)


def _let_through(logits: Tensor, slope: float) -> None:
    """Change the backward pass behind the logits, if they have one."""

    def leak(inner: tuple[Any, ...], outer: tuple[Any, ...]) -> tuple[Any, ...]:
        if inner[0] is None:
            return inner
        return (inner[0].lerp(outer[0], slope), *inner[1:])

    for node in nodes_behind(logits):
        if node.name() in _SWITCHES:
            node.register_hook(leak)
