"""Defences that mask gradients: what the attacks and the gate say, the truth, and what is doubted.

    python benchmarks/battery.py [--n 64] [--write docs/explanation/masked-gradients.md]

The truth is an upper bound too: the best of everything tried, attacks that know the defence among
them, each found image judged on the defence itself. Below the defences stand honest networks: the
samples and, where ``ROBAUDIT_REAL_DATA`` names their folder, published checkpoints. Takes about
half an hour on one core; ``--only NAME`` takes one.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import robaudit as ra
from robaudit.audit import Plan, audit
from robaudit.audit.probes import AutoAttack, Fast, Pgd
from robaudit.checkpoints import samples_dir
from robaudit.gate.policy import read_policy
from robaudit.gate.run import Population, gate

sys.path.insert(0, str(Path(__file__).parents[1] / "studies"))
from defences import Defence, defences

ATTACKS = ("accuracy.pgd", "accuracy.fast", "accuracy.autoattack")
SEARCH_DRAWS, JUDGING_DRAWS = 21, 201
POINT = 0.01


@dataclass(frozen=True)
class Line:
    """One network: accuracies, the truth, doubts and the gate's outcomes, by measurement."""

    name: str
    values: dict[str, float | None]
    truth: float | None
    doubts: dict[str, tuple[str, ...]]
    outcomes: dict[str, str]

    def overstated(self, name: str) -> bool:
        value = self.values.get(name)
        return value is not None and self.truth is not None and value > self.truth + POINT


def mean_margins(network: nn.Module, x: Tensor, y: Tensor, draws: int) -> Tensor:
    """By how much the right logit leads, ``(n,)``; of several draws, its mean probability."""
    with torch.no_grad():
        logits = torch.stack([network(x) for _ in range(draws)])
        if draws > 1:
            logits = logits.softmax(2)
        own = logits.gather(2, y.expand(draws, -1)[..., None])[..., 0]
        rest = logits.scatter(2, y.expand(draws, -1)[..., None], -torch.inf).amax(2)
        return (own - rest).mean(0)


def voted(network: nn.Module, x: Tensor, draws: int) -> Tensor:
    """The network's answer, by majority of fresh draws."""
    with torch.no_grad():
        return torch.stack([network(x).argmax(1) for _ in range(draws)]).mode(0).values


def adaptive(defence: Defence, x: Tensor, y: Tensor, threat: ra.ThreatModel) -> Tensor:
    """What stands against attacks that know the defence, ``(n,)`` bool.

    Of all points met the one with the smallest margin counts, and is judged once: where a network
    draws at random, the worst of many votes would be chance.
    """

    class Soft(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return defence.adaptive(x)

    draws = SEARCH_DRAWS if defence.random else 1
    worst, lead = x.clone(), mean_margins(defence.network, x, y, draws)
    for loss in ("ce", "margin"):
        for seed in range(3):
            torch.manual_seed(seed)
            point = (x + threat.eps * (2 * torch.rand_like(x) - 1)).clamp(0, 1)
            soft = Soft()
            for at in range(60):
                leaf = point.clone().requires_grad_()
                logits = soft(leaf)
                own = logits.gather(1, y[:, None])[:, 0]
                rest = logits.scatter(1, y[:, None], -torch.inf)
                best = rest.logsumexp(1) if loss == "ce" else rest.amax(1)
                (gradient,) = torch.autograd.grad((best - own).sum(), leaf)
                size = threat.eps * (0.25 if at < 30 else 0.05)
                point = (point + size * gradient.sign()).clamp(x - threat.eps, x + threat.eps)
                point = point.clamp(0, 1).detach()
                if at % 10 == 9:
                    # Also on the grid that clean digits lie on, where nothing looks attacked.
                    for tried in (point, (16 * point).round() / 16):
                        found = mean_margins(defence.network, tried, y, draws)
                        inside = (tried - x).abs().flatten(1).amax(1) <= threat.eps + 1e-6
                        lower = inside & (found < lead)
                        worst[lower], lead[lower] = tried[lower], found[lower]
    return voted(defence.network, worst, JUDGING_DRAWS if defence.random else 1) == y


POLICY = """
[gate]
data = "digits"
n = {n}
preset = "standard"
[gate.metrics."{metric}"]
min = {least}
"""


def judged(name: str, network: nn.Module, examples: ra.Examples, threat: ra.ThreatModel) -> Line:
    """What robaudit says of it."""
    plan = Plan(probes=(Pgd(steps=20), Fast(), AutoAttack(engine="native")))
    report = audit(network, examples, threat, plan).report
    values, doubts, outcomes = {}, {}, {}
    for metric in ATTACKS:
        found = report.get(metric)
        values[metric] = found.value if found and found.status == "ok" else None
        reason = (found.reason or "",) if found and found.status != "ok" else ()
        doubts[metric] = (*reason, *(found.doubts if found else ()))
    for metric in ("accuracy.pgd", "accuracy.autoattack"):
        least = max(0.0, (values[metric] or 0.0) - 0.1)
        if least == 0:
            outcomes[metric] = "-"
            continue
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "policy.toml"
            path.write_text(POLICY.format(n=len(examples), metric=metric, least=least))
            policy = read_policy(path)
            verdict = gate(network, policy, [Population(policy.suites[0], examples, threat)])
        outcomes[metric] = verdict.outcome
    return Line(name, values, None, doubts, outcomes)


def honest() -> list[tuple[str, nn.Module, ra.Examples, ra.ThreatModel]]:
    """Networks that hide nothing."""
    digits = ra.load_examples("digits", n=64)
    found = [
        (path.stem, ra.load(path, device="cpu"), digits, ra.ThreatModel("linf", 0.15))
        for path in sorted(samples_dir().iterdir())
        if path.suffix in (".pt", ".safetensors")
    ]
    folder = os.environ.get("ROBAUDIT_REAL_DATA")
    for file, factory, normalize, data, eps in PUBLISHED if folder else ():
        model = ra.load(
            Path(folder or "") / "checkpoints" / file, arch=f"{NETWORKS}:{factory}",
            normalize=normalize, device="cpu",
        )  # fmt: skip
        images = ra.load_examples(str(Path(folder or "") / data), n=64)
        found.append((file, model, images, ra.ThreatModel("linf", eps)))
    return found


NETWORKS = Path(__file__).parents[1] / "tests" / "support" / "published_networks.py"
IMAGENET_225 = "0.485,0.456,0.406;0.225,0.225,0.225"
CIFAR = "cifar10_test_first1017.npz"
PUBLISHED = [
    ("sdp_cifar_cnn_a_adv.model", "cnn_a", IMAGENET_225, CIFAR, 2 / 255),
    ("sdp_cifar_cnn_a_mix.model", "cnn_a", IMAGENET_225, CIFAR, 2 / 255),
    ("eran_cifar_conv_small_pgd.pth", "conv_small", "cifar10", CIFAR, 2 / 255),
    ("trades_mnist_smallcnn.pt", "trades_small_cnn", "none", "mnist_test.npz", 0.3),
]


def text(lines: list[Line]) -> str:
    """The table, in markdown."""
    head = (
        "| network | PGD | fast | AutoAttack | truth | doubted | gate on PGD | gate on AutoAttack |"
    )
    rows = [head, "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        cells = [
            "not measured" if line.values[m] is None
            else f"{100 * line.values[m]:.1f}{' ?' if line.doubts[m] else ''}"
            for m in ATTACKS
        ]  # fmt: skip
        truth = "-" if line.truth is None else f"{100 * line.truth:.1f}"
        doubted = "yes" if any(line.doubts.values()) else "no"
        outcomes = [line.outcomes.get(m, "-") for m in ("accuracy.pgd", "accuracy.autoattack")]
        rows.append(f"| {' | '.join([line.name, *cells, truth, doubted, *outcomes])} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--only")
    parser.add_argument("--write", type=Path, help="a page: replaces what stands between its marks")
    asked = parser.parse_args()
    examples = ra.load_examples("digits", n=asked.n)
    threat = ra.ThreatModel("linf", 0.15)
    lines, missed = [], []
    for defence in defences():
        if asked.only and asked.only not in defence.name:
            continue
        line = judged(defence.name, defence.network, examples, threat)
        stands = adaptive(defence, examples.x, examples.y, threat)
        found = [value for value in line.values.values() if value is not None]
        truth = min([float(stands.double().mean()), *found])
        line = Line(line.name, line.values, truth, line.doubts, line.outcomes)
        lines.append(line)
        print(text([line]).splitlines()[-1], flush=True)
        for metric in ATTACKS:
            for doubt in line.doubts[metric]:
                print(f"    {metric}: {doubt}")
            if line.overstated(metric) and not line.doubts[metric]:
                missed.append(f"{defence.name}: {metric} overstates and nothing says so")
    for name, network, data, ball in [] if asked.only else honest():
        line = judged(name, network, data, ball)
        lines.append(line)
        print(text([line]).splitlines()[-1], flush=True)
        missed += [f"{name}: {m}: false alarm: {line.doubts[m]}" for m in ATTACKS if line.doubts[m]]
    print("\n".join(missed) or "every overstated number is doubted, and no honest one")
    if asked.write:
        page = asked.write.read_text()
        before, _, rest = page.partition("<!-- battery -->\n")
        _, _, after = rest.partition("<!-- end -->")
        asked.write.write_text(f"{before}<!-- battery -->\n{text(lines)}<!-- end -->{after}")


if __name__ == "__main__":
    main()
