"""What training code wraps around a network's keys: prefixes, counters, normalisation. No torch.

A state dict of ``DataParallel(Sequential(Normalize(), net))`` is the network's with ``module.1.``
before every key and two more buffers. The wrappers are removed one at a time, and every stage is
kept, since only the network tells which of them has its own keys.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from robaudit.checkpoints.architectures.architecture import Shapes

_MAX_WRAPPERS = 8
_MAX_PARTS = 64
# Counters, profilers' leftovers and slopes of a verifier's relaxations (COLT): what no forward pass
# of the network reads, by the last part of its key.
_COUNTERS = frozenset(
    {"n_averaged", "initted", "step", "epoch", "total_ops", "total_params", "deepz_lambda"}
)
# What compiling, checkpointing, sharding, per-sample gradients and data parallelism put into the
# middle of a key. The last is a usual name too, so that it goes where nothing is beside it.
_INNER = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_module", "module")
# What a training module holds beside its network, by the first part of a key.
_COMPANIONS = ("criterion", "loss", "loss_fn", "loss_function", "acc", "accuracy", "metrics")
_SPLITS = ("train_", "val_", "valid_", "test_", "")
_BESIDE = frozenset(split + what for split in _SPLITS for what in _COMPANIONS)
# An attack in training code that holds the network a second time.
_ATTACKERS = ("attacker",)
_MEANS = {"mean": "std", "mu": "sigma", "new_mean": "new_std", "_mean": "_std", "means": "sds"}


@dataclass(frozen=True)
class Unwrapped:
    """A state dict's keys without some of the wrappers.

    Attributes:
        names: the network's key to the file's, in the file's order.
        file: the shapes of the file's tensors, by the file's keys.
        prefix: what was removed from the front of every key.
        mean, std: the file's keys of the input normalisation that was removed.
    """

    names: Mapping[str, str]
    file: Shapes = field(repr=False)
    prefix: str = ""
    mean: str | None = None
    std: str | None = None

    @cached_property
    def shapes(self) -> Shapes:
        """The shapes by the network's own keys."""
        return {name: self.file[key] for name, key in self.names.items()}

    def kept(self, names: Iterable[str]) -> Unwrapped:
        """Without the other names."""
        return replace(self, names={name: self.names[name] for name in names})


def unwrappings(shapes: Shapes) -> tuple[Unwrapped, ...]:
    """The state dict as it is, then without one wrapper after another.

    >>> stages = unwrappings({"module.1.w": (3,), "module.0.mean": (3,), "module.0.std": (3,)})
    >>> [list(stage.names) for stage in stages]
    [['module.1.w', 'module.0.mean', 'module.0.std'], ['module.1.w'], ['1.w'], ['w']]
    >>> stages[-1].prefix, stages[-1].mean
    ('module.1.', 'module.0.mean')
    """
    stages = [Unwrapped({key: key for key in shapes}, shapes)]
    while len(stages) < 3 * _MAX_WRAPPERS:
        stage = stages[-1]
        peels = (_cleared(stage), _normalised(stage), _unprefixed(stage), _bared(stage))
        for peeled in peels:
            if peeled is not None:
                stages.append(peeled)
                break
        else:
            break
    return tuple(stages)


def _cleared(stage: Unwrapped) -> Unwrapped | None:
    """Without counters, losses, metrics and a second copy of the network."""
    keep = [name for name in stage.names if name.rpartition(".")[2] not in _COUNTERS]
    firsts = {name.partition(".")[0] for name in keep}
    if len(firsts - _BESIDE) == 1:
        keep = [name for name in keep if name.partition(".")[0] not in _BESIDE]
    copies = {
        name
        for name in keep
        for attacker in _ATTACKERS
        if name.startswith(f"{attacker}.") and name.removeprefix(f"{attacker}.") in stage.names
    }
    keep = [name for name in keep if name not in copies]
    return stage.kept(keep) if keep and len(keep) < len(stage.names) else None


def _bared(stage: Unwrapped) -> Unwrapped | None:
    """Without the wrappers of single layers, ``c2._orig_mod.weight``; those of all are a prefix."""
    if not any(part in name for name in stage.names for part in _INNER):
        return None
    if any(name.count(".") > _MAX_PARTS for name in stage.names):
        return None
    beside: dict[str, set[str]] = {}
    for name in stage.names:
        parts = name.split(".")
        for i, part in enumerate(parts):
            beside.setdefault(".".join(parts[:i]), set()).add(part)

    def bare(name: str) -> str:
        parts = name.split(".")
        kept = [
            part
            for i, part in enumerate(parts)
            if not (0 < i < len(parts) - 1 and part in _INNER)
            or len(beside[".".join(parts[:i])]) > 1
        ]
        return ".".join(kept)

    names = {bare(name): file for name, file in stage.names.items()}
    if len(names) < len(stage.names) or names.keys() == stage.names.keys():
        return None
    return replace(stage, names=names)


def _normalised(stage: Unwrapped) -> Unwrapped | None:
    """Without the one pair of mean and deviation that is alone in its module."""
    if stage.mean is not None:
        return None
    pairs = [pair for name in stage.names if (pair := _pair(name, stage.shapes))]
    keep = [name for name in stage.names if name not in pairs[0]] if len(pairs) == 1 else []
    if not keep:
        return None
    mean, std = pairs[0]
    return replace(stage.kept(keep), mean=stage.names[mean], std=stage.names[std])


def _pair(name: str, shapes: Shapes) -> tuple[str, str] | None:
    parent, dot, last = name.rpartition(".")
    partner = f"{parent}{dot}{_MEANS.get(last, '')}"
    if last not in _MEANS or partner not in shapes:
        return None
    # Alone in its module, unless it is the outermost, which holds the network as well.
    others = [key for key in shapes if key.startswith(f"{parent}.")] if parent else []
    shape, alone = shapes[name], set(others) <= {name, partner}
    fits = alone and shape == shapes[partner] and math.prod(shape) in (1, 3)
    return (name, partner) if fits else None


def _unprefixed(stage: Unwrapped) -> Unwrapped | None:
    """Without the first part of the keys, where all share it."""
    firsts = {name.partition(".")[0] for name in stage.names}
    if len(firsts) != 1 or not all("." in name for name in stage.names):
        return None
    first = firsts.pop() + "."
    names = {name.removeprefix(first): file for name, file in stage.names.items()}
    return replace(stage, names=names, prefix=stage.prefix + first)
