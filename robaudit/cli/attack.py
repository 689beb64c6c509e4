"""``robaudit attack``: accuracies and robust losses, curves over radii, adversarial examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from pydantic import Field

from robaudit.audit.plan import Plan
from robaudit.audit.probe import Attack, Probe
from robaudit.audit.probes import (
    AutoAttack,
    Cw,
    Distance,
    Fast,
    Replay,
    Square,
    Transfer,
    Union,
    known,
)
from robaudit.audit.probes.autoattack import AutoAttackEngine
from robaudit.cli.completion import listed
from robaudit.cli.display import loading
from robaudit.cli.measure import measure
from robaudit.cli.measure_options import PgdOptions
from robaudit.cli.options import DATA_PANEL, OUT_PANEL, Checkpoints, Settings, with_settings
from robaudit.errors import UsageError, did_you_mean
from robaudit.request import AUTO, Folder, Spec, UnionsSpec
from robaudit.types import AutoAttackVersion, ThreatModel, parse_eps, parse_threats

_ATTACKS = ("clean", "pgd", "cw", "fast", "autoattack", "square", "fab", "union", "transfer")


class AttackOptions(PgdOptions, UnionsSpec):
    """How the attacks run."""

    last_iterate: bool = Field(
        default=False,
        description="Count the last iterate of each restart of pgd and cw, as papers mostly do, "
        "not any on the way.",
    )
    version: AutoAttackVersion = Field(default="standard", description="Version of AutoAttack.")
    engine: AutoAttackEngine = Field(
        default="reference",
        description="Who runs AutoAttack. reference: its own library, pyautoattack. native: "
        "robaudit, faster and the same for every batch size.",
    )
    verify: Folder | None = Field(
        default=None,
        description="Attack nothing; check the adversarial images of --save-adv on this "
        "checkpoint.",
    )


class SurrogateOptions(Spec):
    """The network whose adversarial examples are transferred."""

    surrogate: str | None = Field(default=None, description="Where transfer examples come from.")
    surrogate_arch: str | None = Field(default=None, description="Its network, as for --arch.")
    surrogate_normalize: str | None = Field(
        default=None, description="Its normalisation, as for --normalize."
    )
    surrogate_attack: Literal["pgd", "cw"] = Field(
        default="pgd",
        description="What makes its examples: pgd, or cw, which maximises the margin.",
    )


@with_settings(omit=frozenset({"gap", "train_data", "eps"}))
def attack(
    checkpoints: Checkpoints,
    settings: Settings,
    *,
    attack: Annotated[
        str,
        typer.Option(
            metavar="pgd,cw,fast,autoattack,square,fab,union,transfer",
            autocompletion=listed(_ATTACKS),
            help="Which attacks, separated by commas; clean for none of them.",
        ),
    ] = "pgd",
    eps: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER|8/255",
            help="Its radius; several, or one with commas, give the curve. [default: the usual one "
            "for the data set]",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None,
    how: Annotated[AttackOptions, None],
    other: Annotated[SurrogateOptions, "Transfer from another network"],
    save_adv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Write an adversarial image for each example.",
            rich_help_panel=OUT_PANEL,
        ),
    ] = None,
) -> None:
    """Clean and robust accuracy, and the robust loss.

    [bold]robaudit attack ckpt.pt --data cifar10 --data-dir ~/data --attack pgd,autoattack[/bold]

    pgd maximises cross-entropy and gives the robust loss; cw maximises the margin. autoattack is
    the field's ensemble; fast, short runs of APGD on the nearest classes and random patches, takes
    a tenth of the passes or less and is no substitute. square needs no gradients; fab finds the
    distance to the nearest misclassified point; transfer tries --surrogate's adversarial examples.
    Each accuracy is an upper bound on robust accuracy.
    """
    with loading(settings.quiet):
        from robaudit.session.many import Surrogate

    radii = _radii(eps)
    settings = settings.changed(eps=radii[-1] if radii else None)
    surrogate = other.surrogate
    if how.verify is not None:
        if radii or save_adv is not None or surrogate is not None:
            raise UsageError(
                "--verify attacks nothing: --eps, --save-adv and --surrogate say nothing"
            )
        _verify(checkpoints, how.verify, settings)
        return
    names = _names(attack)
    if ("transfer" in names) != (surrogate is not None):
        raise UsageError(
            "--attack transfer and --surrogate CKPT need each other",
            "The surrogate is the network that the examples are made on.",
        )
    if save_adv is not None and save_adv.suffix != ".safetensors":
        raise UsageError(f"--save-adv {save_adv} is no .safetensors file", "Rename it.")
    if names == ["clean"]:
        how = how.changed(step_size=None)
    pgd = replace(how.probe(settings, checkpoints), last_iterate=how.last_iterate)
    cw = Cw.like(pgd)
    asked: dict[str, Probe] = {
        "pgd": pgd,
        "cw": cw,
        "square": Square(),
        "fast": Fast(),
        "autoattack": AutoAttack(how.version, engine=how.engine),
        "fab": Distance(),
    }
    if surrogate is not None:
        maker = cw if other.surrogate_attack == "cw" else pgd
        asked = {"pgd": pgd, "cw": cw, "transfer": Transfer(maker, surrogate), **asked}
    asked |= _further()
    if how.union is not None or how.union_each:
        names = [*dict.fromkeys((*names, "union"))]
    listed = () if how.union is None else parse_threats(how.union)
    asked["union"] = Union(listed, how.union_each)
    plan = Plan(probes=tuple(asked[name] for name in asked if name in names), radii=radii[:-1])
    opened = (
        None
        if surrogate is None
        else Surrogate(surrogate, other.surrogate_arch, other.surrogate_normalize)
    )
    measure(checkpoints, plan, settings, surrogate=opened, save_adv=save_adv)


def _verify(checkpoints: list[str], file: Path, settings: Settings) -> None:
    """Judge a file's examples; radius, data and number are the file's unless they are given."""
    from robaudit.audit.adversarial_file import read_adversarial

    found = read_adversarial(file)
    own = settings.changed(
        norm=found.threat.norm,
        eps=found.threat.eps,
        data=found.data if settings.data == AUTO else settings.data,
        split=found.split,
        n=settings.n or len(found.y),
    )
    measure(checkpoints, Plan(probes=(Replay(str(file)),)), own, replayed=found)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    there = [*_ATTACKS[1:], *_further(), "clean"]
    unknown = [name for name in names if name not in there]
    if unknown:
        raise UsageError(
            f"--attack {text}: unknown attack {unknown[0]!r}{did_you_mean(unknown[0], there)}",
            f"Known: {', '.join(there)}.",
        )
    return names


def _further() -> dict[str, Probe]:
    """The attacks that packages add, by name, with their default settings."""
    own = (*_ATTACKS, "distance", "replay")
    added = [kind.default() for kind in known() if issubclass(kind, Attack)]
    return {probe.name: probe for probe in added if probe is not None and probe.name not in own}


def _radii(given: list[str] | None) -> tuple[float, ...]:
    """Radii in ascending order; zero among others is the clean accuracy, which is there anyway."""
    texts = [text for option in given or [] for text in option.split(",")]
    values = sorted({parse_eps(text) for text in texts})
    if len(values) > 1 and values[0] == 0:
        values = values[1:]
    for value in values:
        ThreatModel("l2", value)
    return tuple(values)
