"""``robaudit attack``: accuracies and robust losses, curves over radii, adversarial examples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

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
    known,
)
from robaudit.audit.probes.autoattack import AutoAttackEngine
from robaudit.cli.measure import measure
from robaudit.cli.measure_options import PgdOptions
from robaudit.cli.options import DATA_PANEL, OUT_PANEL, Checkpoints, Settings, with_settings
from robaudit.errors import UsageError
from robaudit.request import AUTO
from robaudit.types import AutoAttackVersion, ThreatModel, parse_eps

_ATTACKS = ("clean", "pgd", "cw", "fast", "autoattack", "square", "fab", "transfer")
_OTHER = "Transfer from another network"


@with_settings(omit=frozenset({"gap", "train_data", "eps"}))
def attack(
    checkpoints: Checkpoints,
    settings: Settings,
    *,
    attack: Annotated[
        str,
        typer.Option(
            metavar="pgd,cw,fast,autoattack,square,fab,transfer",
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
    pgd_options: Annotated[PgdOptions, None],
    last_iterate: Annotated[
        bool,
        typer.Option(
            "--last-iterate",
            help="Count the last iterate of each restart of pgd and cw, as papers mostly do, not "
            "any on the way.",
        ),
    ] = False,
    version: Annotated[AutoAttackVersion, typer.Option(help="Version of AutoAttack.")] = "standard",
    engine: Annotated[
        AutoAttackEngine,
        typer.Option(
            help="Who runs AutoAttack. reference: its own library, pyautoattack. native: robaudit, "
            "faster and the same for every batch size."
        ),
    ] = "reference",
    surrogate: Annotated[
        str | None,
        typer.Option(
            metavar="CKPT",
            help="Where transfer examples come from.",
            rich_help_panel=_OTHER,
        ),
    ] = None,
    surrogate_arch: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Its network, as for --arch.", rich_help_panel=_OTHER),
    ] = None,
    surrogate_normalize: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Its normalisation, as for --normalize.", rich_help_panel=_OTHER
        ),
    ] = None,
    surrogate_attack: Annotated[
        Literal["pgd", "cw"],
        typer.Option(
            help="What makes its examples: pgd, or cw, which maximises the margin.",
            rich_help_panel=_OTHER,
        ),
    ] = "pgd",
    save_adv: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Write an adversarial image for each example.",
            rich_help_panel=OUT_PANEL,
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.safetensors",
            help="Attack nothing; check the adversarial images of --save-adv on this checkpoint.",
        ),
    ] = None,
) -> None:
    """Clean and robust accuracy, and the robust loss.

    [bold]robaudit attack ckpt.pt --data cifar10 --data-dir ~/data --attack pgd,autoattack[/bold]

    pgd maximises cross-entropy and gives the robust loss; cw maximises the margin. autoattack is
    the field's ensemble; fast, its first two stages on the nearest classes, takes a tenth of the
    time or less and is no substitute. square needs no gradients; fab finds the distance to the
    nearest misclassified point; transfer tries --surrogate's adversarial examples. Each accuracy is
    an upper bound on robust accuracy.
    """
    from robaudit.session.many import Surrogate

    radii = _radii(eps)
    settings = settings.changed(eps=radii[-1] if radii else None)
    if verify is not None:
        if radii or save_adv is not None or surrogate is not None:
            raise UsageError(
                "--verify attacks nothing: --eps, --save-adv and --surrogate say nothing"
            )
        _verify(checkpoints, verify, settings)
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
        pgd_options = pgd_options.changed(step_size=None)
    pgd = replace(pgd_options.probe(settings, checkpoints), last_iterate=last_iterate)
    cw = Cw.like(pgd)
    asked: dict[str, Probe] = {
        "pgd": pgd,
        "cw": cw,
        "square": Square(),
        "fast": Fast(),
        "autoattack": AutoAttack(version, engine=engine),
        "fab": Distance(),
    }
    if surrogate is not None:
        maker = cw if surrogate_attack == "cw" else pgd
        asked = {"pgd": pgd, "cw": cw, "transfer": Transfer(maker, surrogate), **asked}
    asked |= _further()
    plan = Plan(probes=tuple(asked[name] for name in asked if name in names), radii=radii[:-1])
    other = None if surrogate is None else Surrogate(surrogate, surrogate_arch, surrogate_normalize)
    measure(checkpoints, plan, settings, surrogate=other, save_adv=save_adv)


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
            f"--attack {text}: unknown attack {unknown[0]!r}", f"Known: {', '.join(there)}."
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
