"""Checks of the arguments of public functions.

Without them a misspelt literal would mix two methods, images in 0 to 255 would give wrong
distances, and labels of another data set an index error deep inside.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from numbers import Integral
from typing import Any, Literal, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from robaudit.engine.device import device_of
from robaudit.engine.freezing import frozen
from robaudit.engine.images import StoredImages
from robaudit.errors import UsageError, did_you_mean
from robaudit.types import ThreatModel

P = ParamSpec("P")
R = TypeVar("R")

# Whether a checked function is running; functions that it calls skip the checks.
_inside: ContextVar[bool] = ContextVar("inside", default=False)

# Rounding of x / 255 or of a clip may exceed [0, 1] by this much.
_SLACK = 1e-6
_AT_LEAST_ONE = {
    *("restarts", "probes", "perturbations", "passes", "queries", "samples", "steps", "top"),
}
_POSITIVE = {"step_size"}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check arguments before ``function`` runs, by the parameters' names and annotations.

    Checked are ``Literal`` annotations; ``x`` and other images, ``(n, c, h, w)`` in [0, 1]; ``y``;
    ``index``; ``threat``; counts such as ``restarts``.

    Raises:
        UsageError: an invalid argument, with its name, its value and the values allowed.
    """
    return _checked(function, pixels=True)


def checked_features(function: Callable[P, R]) -> Callable[P, R]:
    """:func:`checked` for functions of any features ``(n, ...)``."""
    return _checked(function, pixels=False)


def _checked(function: Callable[P, R], pixels: bool) -> Callable[P, R]:
    signature = inspect.signature(function)
    hints = functools.cache(lambda: typing.get_type_hints(function))

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if _inside.get():
            return function(*args, **kwargs)
        given = signature.bind_partial(*args, **kwargs).arguments
        for name, value in given.items():
            check_literal(name, value, hints().get(name))
        _check(given, pixels)
        token = _inside.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            _inside.reset(token)

    return run


def check_literal(name: str, value: Any, hint: Any) -> None:
    """Raise if a string is not among the literals of the annotation ``hint``.

    Raises:
        UsageError: with the nearest literal.

    >>> check_literal("ball", "sphere", Literal["sphere", "ball"])
    """
    words = [word for word in _literals(hint) if isinstance(word, str)]
    if not words or value in _literals(hint):
        return
    others = [part for part in _parts(hint) if typing.get_origin(part) is not Literal]
    if str in others or (not isinstance(value, str) and others):
        return
    guess = did_you_mean(str(value), words)
    raise UsageError(f"{name} cannot be {value!r}{guess}", f"Known: {', '.join(words)}.")


def _parts(hint: Any) -> Iterator[Any]:
    """The members of a union, recursively."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        for part in typing.get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _literals(hint: Any) -> list[Any]:
    return [
        word
        for part in _parts(hint)
        if typing.get_origin(part) is Literal
        for word in typing.get_args(part)
    ]


def _check(given: Mapping[str, Any], pixels: bool) -> None:
    if not isinstance(given.get("threat"), ThreatModel | None):
        raise UsageError(
            f"threat is a {type(given['threat']).__name__}, not a ThreatModel",
            'Write ThreatModel("linf", 8 / 255).',
        )
    for name in _AT_LEAST_ONE & given.keys():
        count = given[name]
        if name == "samples" and count is None:  # chosen by the network
            continue
        if not isinstance(count, Integral) or count < 1:
            raise UsageError(f"{name} must be a whole number of at least 1, not {count!r}")
    for name in _POSITIVE & given.keys():
        if given[name] is not None and not given[name] > 0:
            raise UsageError(f"{name} must be positive, not {given[name]!r}")
    if not isinstance(given.get("seed", 0), Integral):
        raise UsageError(f"seed must be a whole number, not {given['seed']!r}")
    if "x" not in given:
        return
    x = given["x"]
    check_images("x", x, pixels)
    for name in ("x_adv", "start", "images"):
        other = given.get(name)
        if isinstance(other, Tensor) and other.shape != x.shape:
            raise UsageError(
                f"{name} has the shape {tuple(other.shape)}, x {tuple(x.shape)}: they must agree"
            )
    for name in ("y", "index"):
        if given.get(name) is not None:
            _check_whole(name, given[name], len(x))
    if "y" in given and isinstance(given.get("model"), nn.Module):
        _check_labels(given["model"], x, given["y"])


def check_images(name: str, x: Any, pixels: bool = True) -> None:
    """Raise if ``x`` is not a batch of images in [0, 1].

    Args:
        name: of the argument, for the message.
        x: the value.
        pixels: ``False`` for features of any shape ``(n, ...)`` and range.

    Raises:
        UsageError: another type, shape, dtype or range.
    """
    if not isinstance(x, Tensor):
        raise UsageError(f"{name} is a {type(x).__name__}, not a torch.Tensor")
    if x.dim() < 2 or (pixels and x.dim() != 4):
        wanted = "(n, c, h, w)" if pixels else "(n, ...)"
        raise UsageError(f"{name} has the shape {tuple(x.shape)}, not {wanted}")
    if len(x) == 0:
        raise UsageError(f"{name} holds no image")
    if not x.is_floating_point():
        raise UsageError(
            f"{name} holds {str(x.dtype).removeprefix('torch.')}, not floating-point numbers",
            "Images are in [0, 1]: divide bytes by 255.",
        )
    if isinstance(x, StoredImages):
        return  # reading converts them to [0, 1], and checking would read all of them
    if not pixels:
        return  # features that are not finite are reported per example, by their losses
    low, high = (float(end) for end in torch.aminmax(x.detach()))
    if not (low > -float("inf") and high < float("inf")):
        raise UsageError(f"{name} has numbers that are not finite")
    if not (low >= -_SLACK and high <= 1 + _SLACK):
        bytes_likely = high > 2 and low >= 0
        raise UsageError(
            f"{name} lies in [{low:.4g}, {high:.4g}], not in [0, 1]",
            "Divide by 255."
            if bytes_likely
            else "Normalisation belongs inside the model: give it images as they are in [0, 1].",
        )


def _check_whole(name: str, values: Any, n: int) -> None:
    if not isinstance(values, Tensor):
        raise UsageError(f"{name} is a {type(values).__name__}, not a torch.Tensor")
    if values.shape != (n,):
        raise UsageError(f"{name} has the shape {tuple(values.shape)}, not ({n},) as x has images")
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool:
        kind = str(values.dtype).removeprefix("torch.")
        raise UsageError(f"{name} holds {kind}, not whole numbers")
    if int(values.min()) < 0:
        raise UsageError(f"{name} holds {int(values.min())}, but counts from 0")


def _check_labels(model: nn.Module, x: Tensor, y: Tensor) -> None:
    outputs = _outputs(model, x)
    if outputs is not None and int(y.max()) >= outputs:
        raise UsageError(
            f"y holds the label {int(y.max())}, but the model has {outputs} outputs",
            "Labels count from 0.",
        )


def _outputs(model: nn.Module, x: Tensor) -> int | None:
    """The number of logits; ``None`` where a forward pass fails, which the function will report."""
    device = device_of(model)
    devices = [device] if device.type == "cuda" else []
    pair = x[:2] if len(x) > 1 else x.expand(2, *x.shape[1:])
    try:
        with torch.random.fork_rng(devices), frozen(model), torch.no_grad():
            logits = model(pair.to(device))
    except Exception:
        return None
    found = isinstance(logits, Tensor) and logits.dim() == 2
    return int(logits.shape[1]) if found else None
