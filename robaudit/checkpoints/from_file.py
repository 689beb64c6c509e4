"""The networks that a checkpoint file may hold, with their weights, and their normalisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor, nn

from robaudit.checkpoints.architectures.architecture import (
    Candidate,
    Image,
    UnknownArchitectureError,
)
from robaudit.checkpoints.architectures.parsing import parse_arch
from robaudit.checkpoints.architectures.registry import (
    ARCHITECTURES,
    identify_among,
    named,
    suspect,
)
from robaudit.checkpoints.claims import (
    claimed_accuracies,
    claimed_robust_accuracies,
    recorded_epoch,
)
from robaudit.checkpoints.classifier import Origin
from robaudit.checkpoints.combinations import Proposal
from robaudit.checkpoints.effective import compute, readings, remarks
from robaudit.checkpoints.factory import Factory, called, factory, is_code, unwrapped
from robaudit.checkpoints.files.display import shown
from robaudit.checkpoints.files.quantised import ADVICE, quantised
from robaudit.checkpoints.files.reading import LoadedWeights, read_state_dict
from robaudit.checkpoints.fitting import assemble, fit, nearest
from robaudit.checkpoints.normalization import (
    Normalization,
    parse_normalization,
    spelled,
    usual,
)
from robaudit.checkpoints.sidecar import Statement, statement_of
from robaudit.checkpoints.wrapping import Unwrapped
from robaudit.errors import CheckpointError, UsageError
from robaudit.request import CheckpointSpec
from robaudit.types import Examples

_SHAPES, _FAMILY = "its keys and shapes", "the network's family"
_ARGUMENTS = "Write it as NAME or NAME(argument=value, ...)."


@dataclass(frozen=True)
class _File:
    """A state dict as it is in the file, the ways to unwrap it, and the images it is for."""

    name: str
    state: dict[str, Tensor]
    stages: tuple[Unwrapped, ...]
    image: Image | None


@dataclass(frozen=True)
class _Fitted:
    """Networks with their weights, the stage whose keys they have, and what identified them."""

    networks: tuple[tuple[str, nn.Module], ...]
    stage: Unwrapped
    identified_by: str
    remarks: tuple[str, ...]
    normalization: str = ""


def proposal_from_file(
    path: Path, arch: str | Factory | None, asked: CheckpointSpec, examples: Examples | None
) -> Proposal:
    """Read a file and find its candidate networks and normalisations.

    Args:
        arch: ``--arch``; it wins over what the file says, which wins over its keys and shapes.
        asked: how the file is read; its own ``arch`` and ``normalize`` are passed over.
        examples: networks that cannot take their images are left out.

    Raises:
        CheckpointError: the file is unsafe, unreadable, not identified, or does not fit.
        UsageError: ``arch`` is invalid.
    """
    name = shown(path, 200)
    weights = read_state_dict(
        path,
        member=asked.member,
        weights=asked.weights,
        sha256=asked.sha256,
        trust_pickle=asked.trust_pickle,
    )
    statement = statement_of(weights)
    _refuse_quantised(weights, name)
    raw = weights.state_dict
    stages, made = readings({key: tuple(value.shape) for key, value in raw.items()})
    image = None if examples is None else _image(examples)
    state = {**raw, **{part.name: compute(raw, part) for part in made}}
    file = _File(name, state, stages, image)
    fitted = _fitted(weights, arch, statement, file)
    if {part.name for part in made} & set(fitted.stage.names.values()):
        fitted = replace(fitted, remarks=(*remarks(raw, made), *fitted.remarks))
    normalizations, by = _normalizations(fitted, statement, file)
    origin = Origin(
        source=str(path),
        sha256=weights.sha256,
        format=weights.format,
        architecture=fitted.networks[0][0],
        identified_by=fitted.identified_by,
        normalization="none",
        parameters=sum(p.numel() for p in fitted.networks[0][1].parameters()),
        warnings=(*weights.remarks, *fitted.remarks),
        member=weights.member,
        normalized_by=by,
        architecture_known="determined" if fitted.identified_by == _SHAPES else "said",
        normalization_known="determined" if by == _FAMILY else "said",
        claims=claimed_accuracies(weights.metadata),
        robust_claims=claimed_robust_accuracies(weights.metadata),
        epoch=recorded_epoch(weights.metadata),
    )
    return Proposal(fitted.networks, normalizations, origin)


def _refuse_quantised(weights: LoadedWeights, name: str) -> None:
    if weights.module is not None:
        return
    dtypes = {info.name: info.dtype for info in weights.tensors}
    kind = quantised(dtypes, {})
    if kind is not None:
        raise CheckpointError(f"{name}: its weights are quantised, by {kind}", ADVICE)


def _image(examples: Examples) -> Image:
    channels, height, width = examples.x.shape[1:]
    return channels, height, width


def _fitted(
    weights: LoadedWeights, arch: str | Factory | None, statement: Statement | None, file: _File
) -> _Fitted:
    if arch is not None and (not isinstance(arch, str) or is_code(arch)):
        return _coded(arch, file)
    if arch is not None:
        return _named(arch, {}, "--arch", UsageError, file)
    if weights.module is not None:
        network = (type(weights.module).__name__, weights.module.float())
        return _Fitted((network,), file.stages[0], "the trusted file itself", ())
    if statement is not None and statement.architecture:
        said, where = statement.architecture, statement.where
        return _named(said, statement.kwargs, where, CheckpointError, file)
    return _identified(file)


def _coded(arch: str | Factory, file: _File) -> _Fitted:
    network = unwrapped(factory(arch)())
    network.float()  # measurements are made in float32, whatever the factory chose
    stage = nearest(network, file.stages)
    remarks = fit(network, _dressed(stage, file.state), file.name)
    return _Fitted(((called(arch), network),), stage, "--arch", remarks)


def _named(
    arch: str,
    kwargs: Mapping[str, int | str],
    by: str,
    unknown: type[UsageError | CheckpointError],
    file: _File,
) -> _Fitted:
    """The networks of a named architecture, perhaps with arguments."""
    try:
        architecture, arguments = parse_arch(arch)
        arguments = {**arguments, **kwargs}
        for stage in file.stages:
            shapes = stage.shapes
            candidates = named(architecture, arguments, shapes, image=file.image)
            if candidates[0].fits(shapes):
                break
    except UnknownArchitectureError as error:
        raise unknown(
            f"{by} names an unknown architecture: {shown(arch)!r}"
            + (f"; did you mean {error.near[0]!r}?" if error.near else ""),
            f"Known are {', '.join(ARCHITECTURES)}, torchvision:NAME and timm:NAME; your own is "
            "--arch file.py:factory.",
        ) from None
    except ValueError as error:
        raise unknown(f"{by} {shown(arch)!r}: {shown(error, 160)}", _ARGUMENTS) from None
    return _assembled(candidates, stage, by, file, unknown)


def _identified(file: _File) -> _Fitted:
    """The networks that have the file's keys and shapes."""
    stages = [stage.shapes for stage in file.stages]
    for image in dict.fromkeys((file.image, None)):  # without: the data may be the wrong one
        at, candidates = identify_among(stages, image=image)
        if candidates:
            return _assembled(candidates, file.stages[at], _SHAPES, file)
    for stage in file.stages:
        absent = [c.label for c in suspect(stage.shapes) if c.label.startswith("timm")]
        if absent:
            raise CheckpointError(
                f"{file.name}: its keys are those of {absent[0]}, and timm is not installed",
                "Install it: pip install 'robaudit[timm]'; or give the network with --arch.",
            )
    raise _unidentified(file)


def _assembled(
    candidates: Sequence[Candidate],
    stage: Unwrapped,
    by: str,
    file: _File,
    impossible: type[UsageError | CheckpointError] = CheckpointError,
) -> _Fitted:
    state = _dressed(stage, file.state)
    networks, remarks = [], []
    for candidate in candidates:
        try:
            network, found = assemble(candidate.build, state, file.name)
        except ImportError as error:
            raise impossible(
                f"{file.name}: {candidate.label} needs {error.name}, which is not installed",
                "Install it: pip install "
                + ("'robaudit[timm]'." if error.name == "timm" else f"{error.name}."),
            ) from None
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            why = str(error).removeprefix(f"{candidate.label} gives no network: ")
            raise impossible(
                f"{file.name}: {candidate.label} cannot be built for these weights: "
                f"{shown(why, 160)}",
                "Check --arch, or the arguments beside the checkpoint.",
            ) from None
        networks.append((candidate.label, network))
        remarks += [remark for remark in found if remark not in remarks]
    normalization = candidates[0].family.normalization
    return _Fitted(tuple(networks), stage, by, tuple(remarks), normalization)


def _dressed(stage: Unwrapped, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[key] for name, key in stage.names.items()}


def _normalizations(
    fitted: _Fitted, statement: Statement | None, file: _File
) -> tuple[tuple[Normalization | None, ...], str]:
    """The normalisation and what it is known from, or the candidates and ``""``."""
    stage = fitted.stage
    if statement is not None and statement.normalization is not None:
        try:
            return (parse_normalization(statement.normalization),), statement.where
        except UsageError as error:
            raise CheckpointError(
                f"{file.name}: {statement.where}: {error.message}", error.advice
            ) from None
    if stage.mean is not None and stage.std is not None:
        mean, std = _numbers(file.state[stage.mean]), _numbers(file.state[stage.std])
        if min(std) <= 0:
            raise CheckpointError(
                f"{file.name}: {shown(stage.std)} holds deviations that are not positive",
                "Give the normalisation: --normalize.",
            )
        by = f"the file's {shown(stage.mean)} and {shown(stage.std)}"
        return (spelled(mean, std),), by
    if fitted.normalization:
        return (parse_normalization(fitted.normalization),), _FAMILY
    inside = file.stages[-1]
    if inside.mean is not None:
        return (None,), f"the network itself: it holds {shown(inside.mean)}"
    return usual(3 if file.image is None else file.image[0]), ""


def _numbers(values: Tensor) -> tuple[float, ...]:
    # The shortest decimal of the float32: what its author wrote.
    return tuple(float(str(np.float32(value))) for value in values.flatten().tolist())


def _unidentified(file: _File) -> CheckpointError:
    entries = [f"{shown(name)} {shape}" for name, shape in file.stages[-1].shapes.items()]
    listed = ", ".join(entries if len(entries) <= 5 else [*entries[:3], "...", entries[-1]])
    return CheckpointError(
        f"{file.name}: no known architecture has these {len(entries)} tensors: {listed}",
        "Give the network: --arch file.py:factory, a function without arguments that returns it.",
    )
