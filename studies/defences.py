"""Defences that mask gradients, small, on the digits; each with a network that undoes the mask.

The backward pass of :attr:`Defence.adaptive` is one that leads somewhere: the mask left out, the
identity through it, or a soft version of it. What is found there is judged on the defence itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import robaudit as ra
from robaudit.checkpoints import samples_dir


@dataclass(frozen=True)
class Defence:
    """A network that may look more robust than it is.

    Attributes:
        adaptive: from images to logits, for the attacks that know the defence.
        random: whether it draws on every pass; the audit then is of the vote.
        source: who proposed or broke something of its kind.
    """

    name: str
    network: nn.Module
    adaptive: Callable[[Tensor], Tensor]
    random: bool = False
    source: str = ""


def through(hard: Tensor, soft: Tensor) -> Tensor:
    """The values of ``hard`` with the gradient of ``soft`` (Bengio et al. 2013; BPDA)."""
    return soft + (hard - soft).detach()


class Small(nn.Module):
    """Two convolutions and a linear layer; ``front`` acts on images, ``act`` on activations."""

    def __init__(
        self, front: Callable[[Tensor], Tensor], act: Callable[[Tensor], Tensor], channels: int = 1
    ) -> None:
        super().__init__()
        self.front, self.act = front, act
        torch.manual_seed(0)
        self.c1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.c2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.c1(self.front(x)))
        return self.fc(self.act(self.c2(x)).flatten(1))

    def with_parts(
        self, front: Callable[[Tensor], Tensor], act: Callable[[Tensor], Tensor]
    ) -> Small:
        """The same weights with another front and other activations."""
        other = Small(front, act, self.c1.in_channels)
        other.load_state_dict(self.state_dict())
        return other.eval().requires_grad_(False)


class Wrapped(nn.Module):
    """A network behind something: ``run(network, x)``."""

    def __init__(self, network: nn.Module, run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.run = network, run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.network, x)


def trained(network: Small, noise: float = 0.1, epochs: int = 15) -> Small:
    """Trained on noisy digits; gradients are whatever the network's own are."""
    torch.manual_seed(0)
    data = ra.load_examples("digits", split="train")
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.x)).split(64):
            x = (data.x[rows] + noise * torch.randn(len(rows), 1, 8, 8)).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(network(x), data.y[rows]).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def same(x: Tensor) -> Tensor:
    return x


def rounded(x: Tensor, levels: int = 4) -> Tensor:
    return (x * levels).round() / levels


def thermometer(x: Tensor, levels: int = 8) -> Tensor:
    """Which of the levels a pixel exceeds (Buckman et al. 2018)."""
    steps = torch.arange(levels, device=x.device).reshape(1, -1, 1, 1) / levels
    return (x > steps).float()


def soft_thermometer(x: Tensor, levels: int = 8) -> Tensor:
    steps = torch.arange(levels, device=x.device).reshape(1, -1, 1, 1) / levels
    return through(thermometer(x, levels), ((x - steps) * levels).clamp(0, 1))


def winners(x: Tensor, share: float = 0.15) -> Tensor:
    """k winners take all: what is not among the largest becomes zero (Xiao et al. 2020)."""
    flat = x.flatten(1)
    least = flat.topk(max(1, int(share * flat.shape[1])), 1).values[:, -1:]
    return (flat * (flat >= least)).reshape(x.shape)


def mean_sparse(x: Tensor, alpha: float = 0.6) -> Tensor:
    """Activations near their channel's mean become it (Amini et al. 2024)."""
    mean = x.mean((0, 2, 3), keepdim=True).detach()
    spread = x.std((0, 2, 3), keepdim=True).detach()
    return torch.where((x - mean).abs() < alpha * spread, mean.expand_as(x), x)


def step(x: Tensor) -> Tensor:
    """An activation of two values, trained by the identity's gradient."""
    return through((x > 0).float(), x.clamp(-1, 1))


def shifted(x: Tensor) -> Tensor:
    """A random crop of the padded image, drawn anew on every pass."""
    padded = F.pad(x, (1, 1, 1, 1))
    rows, columns = torch.randint(3, (len(x),)), torch.randint(3, (len(x),))
    return torch.stack(
        [
            image[:, a : a + x.shape[2], b : b + x.shape[3]]
            for image, a, b in zip(padded, rows.tolist(), columns.tolist(), strict=True)
        ]
    )


def on_grid(x: Tensor) -> Tensor:
    """Clean digits lie on multiples of 1/16; attacked ones do not."""
    return (x * 16 - (x * 16).round()).abs().flatten(1).amax(1) < 1e-4


class _WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        return -gradient


class _Projected(torch.autograd.Function):
    """The gradient's part in one random direction."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[override]
        draw = torch.Generator().manual_seed(5)
        line = F.normalize(torch.randn(gradient[0].numel(), generator=draw), dim=0)
        flat = gradient.flatten(1)
        return ((flat @ line)[:, None] * line).reshape(gradient.shape)


def _mean_of(network: nn.Module, draws: int = 12) -> Callable[[Tensor], Tensor]:
    """Expectation over draws (Athalye et al. 2018)."""
    return lambda x: torch.stack([network(x).softmax(1) for _ in range(draws)]).mean(0).log()


def leak(x: Tensor) -> Tensor:
    """A little of a linear function, so that losses rise and lead nowhere."""
    draw = torch.Generator().manual_seed(3)
    return x.flatten(1) @ torch.randn(x[0].numel(), 10, generator=draw)


def defences() -> list[Defence]:
    """All of them; the networks are trained here, within a minute."""
    standard = ra.load(samples_dir() / "standard.pt", device="cpu")
    robust = ra.load(samples_dir() / "robust.pt", device="cpu")

    def behind(
        run: Callable[[nn.Module, Tensor], Tensor], network: nn.Module = standard
    ) -> nn.Module:
        return Wrapped(network, run).eval()

    def noise(x: Tensor) -> Tensor:
        return (x + 0.15 * torch.randn_like(x)).clamp(0, 1)

    noisy = behind(lambda f, x: f(noise(x)))
    cropped = trained(Small(shifted, F.relu))
    thermo = trained(Small(thermometer, F.relu, 8))
    kwta = trained(Small(same, winners))
    stepped = trained(Small(same, step))
    hard = stepped.with_parts(same, lambda x: (x > 0).float() + 0 * x)
    sparse = trained(Small(same, lambda x: mean_sparse(F.relu(x))))
    return [
        Defence(
            "rounded input", behind(lambda f, x: f(rounded(x))),
            lambda x: standard(through(rounded(x), x)), source="Guo et al. 2018",
        ),
        Defence(
            "rounded input of a robust network", behind(lambda f, x: f(rounded(x)), robust),
            lambda x: robust(through(rounded(x), x)), source="Guo et al. 2018",
        ),
        Defence(
            "rounded input and a leak", behind(lambda f, x: f(rounded(x, 16)) + 1e-4 * leak(x)),
            lambda x: standard(through(rounded(x, 16), x)),
        ),
        Defence(
            "thermometer code", thermo, thermo.with_parts(soft_thermometer, F.relu),
            source="Buckman et al. 2018; broken by Athalye et al. 2018",
        ),
        Defence(
            "k winners take all", kwta,
            kwta.with_parts(lambda x: x + 0.02 * torch.randn_like(x), winners),
            source="Xiao et al. 2020; broken by Tramer et al. 2020",
        ),
        Defence(
            "mean-sparse activations", sparse, sparse.with_parts(same, F.relu),
            source="Amini et al. 2024",
        ),
        Defence("step activations", hard, stepped),
        Defence(
            "saturated logits", behind(lambda f, x: 1e4 * f(x)), standard,
            source="Papernot et al. 2016; broken by Carlini & Wagner 2017",
        ),
        Defence(
            "hard outputs and a leak",
            behind(lambda f, x: 3 * F.one_hot(f(x).argmax(1), 10).float() + 3e-2 * leak(x)),
            standard,
        ),
        Defence(
            "detached branch", behind(lambda f, x: f(x).detach() + 0.05 * robust(x)), standard,
        ),
        Defence(
            "recognises attacked inputs",
            behind(lambda f, x: torch.where(on_grid(x)[:, None], f(x), f(rounded(x, 2)).detach()
                                            + 0 * f(x))),
            standard,
        ),
        Defence("wrong-signed gradient", behind(lambda f, x: f(_WrongSign.apply(x))), standard),
        Defence("gradient in one direction", behind(lambda f, x: f(_Projected.apply(x))), standard),
        Defence(
            "random crops", cropped, _mean_of(cropped), random=True,
            source="Xie et al. 2018; broken by Athalye et al. 2018",
        ),
        Defence(
            "random noise", noisy, _mean_of(noisy), random=True, source="Liu et al. 2018",
        ),
    ]  # fmt: skip
