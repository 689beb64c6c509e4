"""Small networks, each with the features whose curvature the tests check."""

import torch
from torch import nn
from torch.nn import functional as F


def warmed(model, shape, seed=0):
    """Double precision, evaluation mode, batch norm statistics away from their defaults."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model.double().eval()


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        out = F.relu(self.norm(self.stem(x)), inplace=True)
        out = F.relu(out + self.conv(out))
        return self.head(F.avg_pool2d(out, int(out.shape[-1])).flatten(1))


class Tokens(nn.Module):
    """Linear layers on a sequence of patches, as in a ViT, but with ReLU."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.embed = nn.Linear(4, 5)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)
        self.activation = activation

    def forward(self, x):
        tokens = x.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 2, 4, 1, 3, 5)
        tokens = tokens.flatten(1, 2).flatten(2)[:, :, :4]
        return self.head(self.mix(self.activation(self.embed(tokens))).mean(1))


def piecewise_linear():
    """Name -> network on (n, 2, 6, 6) images with 3 classes."""
    return {
        "stride-padding": nn.Sequential(
            nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(27, 3)
        ),
        "groups": nn.Sequential(
            nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4, padding=1),
            nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(64, 3),
        ),
        "dilation-same": nn.Sequential(
            nn.Conv2d(2, 3, 3, dilation=2), nn.ReLU(), nn.Conv2d(3, 2, (2, 3), padding="same"),
            nn.ReLU(), nn.Flatten(), nn.Linear(8, 3),
        ),
        "circular": nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(27, 3),
        ),
        "batch-norm": nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 3),
        ),
        "residual": Residual(),
        "conv1d": nn.Sequential(
            nn.Flatten(2), nn.Conv1d(2, 3, 5, stride=3, padding=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(36, 3),
        ),
        "tokens": Tokens(),
        "linear-only": nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3)),
    }  # fmt: skip


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.qkv = nn.Linear(6, 18)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        tokens = self.embed(x.transpose(1, 2).flatten(2))
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        mixed = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]
        return self.head((tokens + mixed).mean(1))


def smooth():
    return {
        "silu": nn.Sequential(nn.Conv2d(2, 3, 3), nn.SiLU(), nn.Flatten(), nn.Linear(48, 3)),
        "gelu-functional": Tokens(F.gelu),
        "attention": Attention(),
    }


class Applied(nn.Module):
    """A function of its modules and of the images."""

    def __init__(self, function, *modules):
        super().__init__()
        self.function = function
        self.parts = nn.ModuleList(modules)

    def forward(self, x):
        return self.function(*self.parts, x)
