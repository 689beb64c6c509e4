"""Small networks that hide their weights from whoever watches modules being called."""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """``nn.MultiheadAttention`` on the columns of images ``(n, 2, 6, 6)``."""

    def __init__(self, batch_first=True, separate=False, bias=True):
        super().__init__()
        sizes = {"kdim": 5, "vdim": 3} if separate else {}
        self.batch_first = batch_first
        self.embed = nn.Linear(12, 6)
        self.attention = nn.MultiheadAttention(6, 2, bias=bias, batch_first=batch_first, **sizes)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        columns = x.permute(0, 3, 1, 2).flatten(2)
        k, v = (columns[..., :5], columns[..., 5:8]) if self.attention.kdim == 5 else (None, None)
        q = self.embed(columns)
        if not self.batch_first:
            q, k, v = (None if t is None else t.transpose(0, 1) for t in (q, k, v))
        mixed = self.attention(q, q if k is None else k, q if v is None else v)[0]
        return self.head((q + mixed).mean(int(self.batch_first)))


class SequenceFirst(nn.Module):
    """Rows of tokens, not of examples; ReLU."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 5)
        self.norm = nn.BatchNorm1d(5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        tokens = self.embed(x.permute(2, 0, 1, 3).flatten(2))
        return self.head(self.norm(tokens.relu().mean(0)))


class Quantised(nn.Module):
    """Pixels as indices into a table, and a position's own vector."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(4, 5)
        self.position = nn.Parameter(torch.randn(1, 72, 5) / 4)
        self.scale = nn.Parameter(torch.ones(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        tokens = self.table((x.flatten(1) * 3.999).long()) + self.position
        return self.head(self.scale * tokens.relu().mean(1))


class Standardised(nn.Conv2d):
    """A convolution with its own forward: its weight without the mean."""

    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias)


class TwoKinds(nn.Module):
    """One weight for a convolution and its adjoint, side by side."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(2, 2, 3, padding=1)
        self.up = nn.ConvTranspose2d(2, 2, 3, padding=1)
        self.up.weight = self.down.weight
        self.head = nn.Linear(72, 3)

    def forward(self, x):
        return self.head((self.down(x).relu() + self.up(input=x).relu()).flatten(1))


class Tied(nn.Module):
    """One matrix for a linear layer and, as a function, a convolution."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)
        self.conv = nn.Conv1d(6, 4, 1)
        self.conv.weight = self.linear.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        rows = x.flatten(1, 2)
        by_conv = F.conv1d(rows.transpose(1, 2), self.conv.weight[:, :, None], self.conv.bias)
        return self.head((by_conv.transpose(1, 2).relu() + self.linear(rows).relu()).mean(1))


class Behind(nn.Module):
    """A layer that is called, and whose weight is used once more without being called."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(72, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = x.flatten(1)
        return self.head(self.body(x).relu() + F.linear(x.flip(1), self.body.weight).relu())


class Norms(nn.Module):
    """Every normalisation with a scale and a bias."""

    def __init__(self, activation=F.relu):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.batch = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.instance = nn.InstanceNorm2d(4, affine=True)
        self.plane = nn.LayerNorm((4, 4))
        self.up = nn.ConvTranspose2d(4, 2, 2, stride=2)
        self.layer = nn.LayerNorm(8)
        self.rms = nn.RMSNorm(8)
        self.flat = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 3)
        self.activation = activation

    def forward(self, x):
        out = self.activation(self.batch(self.conv(x)))
        out = self.plane(self.instance(self.group(out)))
        out = self.activation(self.up(out)).flatten(1, 2)
        return self.head(self.flat(self.rms(self.layer(out)).mean(1)))


def hidden_piecewise_linear():
    torch.manual_seed(0)
    return {
        "sequence-first": SequenceFirst(),
        "embedding": Quantised(),
        "own-forward": nn.Sequential(
            Standardised(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
        ),
        "two-kinds": TwoKinds(),
        "tied": Tied(),
        "behind": Behind(),
    }


def shaken(model, seed=0):
    """No parameter is zero or one by default; double precision, evaluation mode."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
    return model.double().eval()
