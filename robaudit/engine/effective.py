"""Effective weights of parametrised and pruned modules, and parameters that are not used.

Measures of weights concern the tensors that the network multiplies with, not the parameters these
are computed from: a weight-normed and a plain network of the same function have the same flatness,
traces and spectra.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from robaudit.engine.calls import observed
from robaudit.engine.device import device_of
from robaudit.engine.freezing import frozen
from robaudit.engine.graph import nodes_behind
from robaudit.engine.seeding import generator
from robaudit.engine.voting import SINGLE_DRAWS, draws_at_random
from robaudit.errors import NotMeasuredError, first_line

# Attribute of a module of the plain copy: which entries of its tensors are not pruned.
_KEPT = "robaudit_kept_entries"
# Error of the plain copy's logits that counts as rounding, relative to the largest.
_ALLOWED = 1e-4
_IMAGES = 16
_FEW = 8


def effective(model: nn.Module, x: Tensor | None = None) -> nn.Module:
    """The network with its effective weights as ordinary parameters.

    Tensors that ``torch.nn.utils.parametrize`` (weight norm, spectral norm, orthogonal maps and
    others), the older hooks of weight and spectral norm, or ``torch.nn.utils.prune`` compute at
    each call are computed once, in evaluation mode, and become parameters of a copy with the same
    function and the same module names. Entries that are zero whatever their parameters hold are
    pruned; :func:`kept_entries` returns the others.

    Args:
        model: the network; it is left unchanged, and returned itself where nothing is to be done.
        x: images ``(n, c, h, w)`` on which the copy is compared; a few are run repeatedly, since a
            randomised network is not a function of its weights.

    Raises:
        NotMeasuredError: the network is randomised, cannot be copied, or the copy is another
            function.
    """
    if x is not None and draws_at_random(model, x[:2]):
        raise NotMeasuredError(SINGLE_DRAWS, "Measure it with its noise switched off.")
    if not any(_made(module) for module in model.modules()):
        return model
    try:
        plain = copy.deepcopy(model, detached(model)).eval()
        with torch.no_grad():
            _bake(plain)
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise NotMeasuredError(
            f"the network's parametrised weights cannot be made plain: {first_line(error)}",
            "Remove the parametrisations (torch.nn.utils.parametrize.remove_parametrizations).",
        ) from error
    if x is not None:
        _check_same(model, plain, x[:2].to(device_of(model)))
    return plain


def in_float64(model: nn.Module, x: Tensor) -> nn.Module:
    """A copy of the network, with its effective weights, that computes in float64.

    Args:
        x: images ``(n, c, h, w)``; the first two are run.

    Raises:
        NotMeasuredError: the network cannot be copied, or part of it computes in float32.
    """
    plain = effective(model, x)
    refusal = "the network cannot be run in float64: "
    try:
        double = copy.deepcopy(plain, detached(plain)).double().eval()
        with torch.no_grad():  # not frozen, which would convert the logits
            logits = double(x[:2].to(device_of(double), torch.float64))
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise NotMeasuredError(refusal + first_line(error)) from error
    if logits.dtype != torch.float64:
        raise NotMeasuredError(f"{refusal}its logits are {logits.dtype}")
    return double


def effective_notes(model: nn.Module, plain: nn.Module) -> tuple[str, ...]:
    """What :func:`effective` did, in sentences for a report; empty if it did nothing."""
    if plain is model:
        return ()
    made = [
        name or type(module).__name__ for name, module in model.named_modules() if _made(module)
    ]
    found = [
        f"{len(made)} modules make their weights from other parameters ({listed(made)}): the "
        "weights they compute with are measured"
    ]
    pruned = {name: int((~kept).sum()) for name, kept in kept_entries(plain).items()}
    if pruned:
        found.append(
            f"{sum(pruned.values())} pruned entries of {len(pruned)} tensors stay zero and are not "
            f"counted ({listed(list(pruned))})"
        )
    return tuple(found)


def kept_entries(plain: nn.Module) -> dict[str, Tensor]:
    """Name to a mask of the entries that are not pruned, for parameters with pruned entries.

    Args:
        plain: the result of :func:`effective`.
    """
    kept: dict[int, Tensor] = {}
    for module in plain.modules():
        for name, mask in vars(module).get(_KEPT, {}).items():
            parameter = module._parameters.get(name)
            if parameter is not None:
                kept[id(parameter)] = mask.to(parameter.device)
    return {name: kept[id(p)] for name, p in plain.named_parameters() if id(p) in kept}


def idle_parameters(model: nn.Module, x: Tensor) -> tuple[str, ...]:
    """Names of the parameters that no forward pass of these images uses, in the network's order.

    They have no gradient, and changing them leaves the logits the same bit for bit.

    Args:
        model: in evaluation mode.
        x: images ``(n, c, h, w)``; the first sixteen are run.
    """
    images = x[:_IMAGES].to(device_of(model))
    named = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    try:
        leaves = {name: p.detach().requires_grad_() for name, p in named.items()}
        with torch.enable_grad():
            if _all_reached(functional_call(model, leaves, (images[:2],)), leaves.values()):
                return ()
            logits = functional_call(model, leaves, (images,))
            gradients = torch.autograd.grad(logits.sum(), list(leaves.values()), allow_unused=True)
        unreached = [name for name, g in zip(leaves, gradients, strict=True) if g is None]
        if not unreached:
            return ()
        with torch.no_grad():
            logits = model(images)

            def idle(names: Sequence[str]) -> bool:
                moved = {name: 2 * named[name].detach() + 1 for name in names}
                return torch.equal(functional_call(model, moved, (images,)), logits)

            if idle(unreached):
                return tuple(unreached)
            return tuple(name for name in unreached if idle([name]))
    except (RuntimeError, TypeError, ValueError, AttributeError):
        return ()  # the measurement will raise the same error


def _all_reached(logits: Tensor, leaves: Iterable[Tensor]) -> bool:
    """Whether operators of torch's own, all of which have gradients, lead to each of the leaves."""
    missing = {id(leaf) for leaf in leaves}
    for node in nodes_behind(logits):
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return False  # it may give no gradient
        missing.discard(id(getattr(node, "variable", None)))
    return not missing


def idle_note(idle: Sequence[str]) -> tuple[str, ...]:
    """One sentence about tensors that are left out, or none."""
    if not idle:
        return ()
    return (f"{len(idle)} tensors are used by no pass and are left out ({listed(idle)})",)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first names, and the number of the others.

    >>> listed(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _made(module: nn.Module) -> bool:
    """Whether a tensor of the module is computed at each call by torch's utilities."""
    return parametrize.is_parametrized(module) or any(True for _ in _hooks(module))


def _hooks(module: nn.Module) -> Iterator[tuple[int, Any, str]]:
    """The hooks that compute tensors before each call: key, hook, and name of the tensor."""
    for key, hook in module._forward_pre_hooks.items():
        made_by: Any = hook
        if isinstance(made_by, WeightNorm | SpectralNorm):
            yield key, made_by, made_by.name
        elif isinstance(made_by, BasePruningMethod):
            yield key, made_by, made_by._tensor_name


def detached(model: nn.Module) -> dict[int, Any]:
    """A memo for :func:`copy.deepcopy`, which refuses tensors that are not leaves."""
    return {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }


@dataclass(frozen=True)
class _Tensor:
    """A tensor that its module computes at each call, and the parameters it depends on."""

    name: str
    value: Tensor
    kept: Tensor
    behind: tuple[nn.Parameter, ...]


def _bake(plain: nn.Module) -> None:
    """Replace the parameters of computed tensors by these tensors, in all modules."""
    baked = [(module, _tensors(module)) for module in plain.modules() if _made(module)]
    tied: dict[frozenset[int], list[nn.Parameter]] = {}
    for module, tensors in baked:
        _strip(module)
        for tensor in tensors:
            # A tensor that several modules compute from the same parameters stays shared.
            known = tied.setdefault(frozenset(map(id, tensor.behind)), [])
            same = next((p for p in known if torch.equal(p, tensor.value)), None)
            if same is None:
                wanted = any(parameter.requires_grad for parameter in tensor.behind)
                same = nn.Parameter(tensor.value, requires_grad=wanted)
                known.append(same)
            module._buffers.pop(tensor.name, None)
            module.register_parameter(tensor.name, same)
        # In the order of a plain module: weights before biases.
        ordered = sorted(module._parameters.items(), key=lambda item: "weight" not in item[0])
        module._parameters = dict(ordered)
        kept = {tensor.name: tensor.kept for tensor in tensors if not bool(tensor.kept.all())}
        vars(module)[_KEPT] = kept


def _tensors(module: nn.Module) -> list[_Tensor]:
    values = {name: value.detach().clone() for name, value in _values(module).items()}
    behind = {name: _behind(module, name) for name in values}
    own = {id(p): p for name in values for p in _behind(module, name, maps=False)}
    before = {key: p.detach().clone() for key, p in own.items()}
    draw = generator(0, "effective weights")
    try:  # entries that stay zero when their parameters change are pruned
        for p in own.values():
            p.copy_(p + 0.1 * torch.randn(p.shape, generator=draw).to(p))
        moved = {name: value.detach().clone() for name, value in _values(module).items()}
    finally:
        for key, p in own.items():
            p.copy_(before[key])
    return [
        _Tensor(name, value, (value != 0) | (moved[name] != 0), behind[name])
        for name, value in values.items()
    ]


def _values(module: nn.Module) -> dict[str, Tensor]:
    """The module's computed tensors: parametrised ones, and those of its hooks."""
    names = list(cast(Any, module).parametrizations) if parametrize.is_parametrized(module) else []
    made = []
    for _, hook, name in _hooks(module):
        hook(module, ())
        made.append(name)
    # A pruned weight_v is an intermediate result, not a weight.
    used = {part for name in made for part in _parts(name)}
    names += [name for name in dict.fromkeys(made) if name not in used]
    return {name: getattr(module, name) for name in names}


def _parts(name: str) -> tuple[str, ...]:
    """The names that the older hooks and pruning use for the parameters of a tensor."""
    return tuple(f"{name}{suffix}" for suffix in ("_g", "_v", "_u", "_orig", "_mask"))


def _behind(module: nn.Module, name: str, *, maps: bool = True) -> tuple[nn.Parameter, ...]:
    """The parameters that a tensor is computed from.

    Args:
        maps: those of a parametrisation itself, too.
    """
    if parametrize.is_parametrized(module, name):
        made = cast(Any, module).parametrizations[name]
        return tuple(made.parameters(recurse=maps))
    parts = [part for near in _parts(name) for part in (near, *_parts(near))]
    found = (module._parameters.get(part) for part in parts)
    return tuple(parameter for parameter in found if parameter is not None)


def _strip(module: nn.Module) -> None:
    """Remove a module's parametrisations, hooks and their parameters."""
    if parametrize.is_parametrized(module):
        del module._modules["parametrizations"]
        # remove_parametrizations would delete the property of the class that the original shares.
        module.__class__ = module.__class__.__bases__[0]
    for key, _, name in list(_hooks(module)):
        del module._forward_pre_hooks[key]
        for part in (name, *_parts(name)):
            module._parameters.pop(part, None)
            module._buffers.pop(part, None)
            vars(module).pop(part, None)
    for hooks in (module._state_dict_hooks, module._load_state_dict_pre_hooks):
        for key in [k for k, hook in hooks.items() if "SpectralNorm" in type(hook).__name__]:
            del hooks[key]


def _check_same(model: nn.Module, plain: nn.Module, images: Tensor) -> None:
    try:
        with frozen(model), frozen(plain), torch.no_grad():
            before = model(images)
            with observed(dict(model.named_modules())) as called:
                after = plain(images)
    except AttributeError as error:
        raise NotMeasuredError(
            f"the network's parametrised weights cannot be made plain: {first_line(error)}"
        ) from error
    if called:  # as by a forward that is a function with the network in its closure
        raise NotMeasuredError(
            "the network's parametrised weights cannot be made plain: a copy of it still calls "
            f"the {type(called[0].module).__name__} of the original"
        )
    # Where the network's own logits are not finite, the measurement will report it.
    if not bool(before.isfinite().all()):
        return
    off = float((before - after).abs().max())
    if not off <= _ALLOWED * float(before.abs().max().clamp_min(1e-12)):
        raise NotMeasuredError(
            "the network's parametrised weights cannot be made plain: the logits change by "
            f"{off:.2g} (are they random, or changed by every call?)"
        )
