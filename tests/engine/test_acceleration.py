"""Folded and reordered networks compute what the network computes, or are not used."""

import copy

import pytest
import torch
from torch import nn

from robaudit import ThreatModel, load, load_examples
from robaudit.checkpoints.architectures import ARCHITECTURES
from robaudit.checkpoints.samples import samples_dir
from robaudit.engine import accelerate, precision
from robaudit.engine.folding import fold_batch_norm


def warm(network, shape=(3, 8, 8)):
    """Norms with statistics, scales and shifts of their own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.affine:
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.rand(16, *shape))
    return network.eval()


@pytest.fixture(scope="module")
def robust():
    return load(samples_dir() / "robust.pt", device="cpu")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.second, self.pre = nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.head, self.tail = nn.Linear(16, 5), nn.BatchNorm1d(5, affine=False)

    def forward(self, x):
        h = self.norm(self.first(x)).relu()
        h = h + self.second(self.pre(h).relu())
        return self.tail(self.head(h.mean((2, 3))))


class PreActivation(nn.Module):
    """Outputs of ``stem`` and ``second`` go past their norms as well."""

    def __init__(self):
        super().__init__()
        self.stem, self.pre = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.first, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)

    def forward(self, x):
        h = self.stem(x)
        inner = self.second(self.norm(self.first(self.pre(h).relu())).relu())
        past = inner.view(len(x), -1).mean(1)
        h = h + inner
        return self.last(inner).mean((2, 3)) + h.mean((2, 3)) + past[:, None]


class UsedTwice(nn.Module):
    """The layer's raw output goes past the norm as well, but not where few images are given."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        h = self.conv(x)
        return (self.norm(h) + (h if len(x) > 2 else 0)).mean((2, 3))


class Overwritten(nn.Module):
    """ReLU changes the layer's output in place before the norm sees the same tensor."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)

    def forward(self, x):
        return self.norm(self.conv(x).relu_()).mean((2, 3))


class CalledTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(self.norm(self.conv(x)).relu())).mean((2, 3))


def agree(network, forward, shape=(3, 8, 8)):
    torch.manual_seed(1)
    x = torch.rand(5, *shape, dtype=next(network.parameters()).dtype)
    with torch.no_grad():
        torch.testing.assert_close(forward(x), network(x), rtol=1e-9, atol=1e-9)


FOLDABLE = {
    "residual": (Residual, 2),
    "pre-activation": (PreActivation, 1),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True),
            nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8, affine=False),
            nn.Flatten(), nn.Linear(128, 4), nn.BatchNorm1d(4),
        ), 3,
    ),
    "one dimension": (
        lambda: nn.Sequential(
            nn.Flatten(2), nn.Conv1d(3, 4, 5), nn.BatchNorm1d(4), nn.Flatten()
        ), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOLDABLE)
def test_folding_changes_nothing_but_the_number_of_norms(name):
    make, folds = FOLDABLE[name]
    network = warm(make()).double()
    before = copy.deepcopy(network.state_dict())
    found = fold_batch_norm(network, torch.rand(2, 3, 8, 8, dtype=torch.float64))
    folded = found.network
    agree(network, folded)
    gone = sum(isinstance(module, nn.Identity) for module in folded.modules())
    assert gone == len(found.affine) == folds
    for name, (scale, shift) in found.affine.items():
        own, its = network.get_submodule(name), folded.get_submodule(name)
        bias = 0 if own.bias is None else own.bias
        wide = scale.reshape(-1, *[1] * (own.weight.dim() - 1))
        torch.testing.assert_close(its.weight, own.weight * wide)
        torch.testing.assert_close(its.bias, bias * scale + shift)
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize(
    ("name", "settings", "folds"),
    # Of a block's convolutions the first is followed by a norm alone; so are the stem and the
    # shortcuts of networks whose norms come after.
    [
        ("preact_resnet", {"depth": 18}, 8),
        ("wide_resnet", {"depth": 10, "width": 1}, 3),
        ("resnet", {"depth": 18}, 20),
    ],
)
def test_what_is_inside_residual_blocks_is_folded_as_in_float64(name, settings, folds):
    network = warm(ARCHITECTURES[name].factory(**settings)).double()
    found = fold_batch_norm(network, torch.rand(2, 3, 8, 8, dtype=torch.float64))
    assert len(found.affine) == folds
    agree(network, found.network)


def shared():
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(3), second, nn.BatchNorm2d(3), nn.Flatten())


def weight_norm():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))
    return nn.Sequential(layer, nn.BatchNorm2d(4), nn.Flatten())


@pytest.mark.parametrize(
    "make",
    [
        Overwritten, CalledTwice, shared, weight_norm,
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)),
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)),
    ],
)  # fmt: skip
def test_what_is_no_layer_with_its_norm_is_left_alone(make):
    assert fold_batch_norm(warm(make()), torch.rand(2, 3, 8, 8)) is None


def test_a_fold_that_is_wrong_is_found_out_and_dropped():
    network = warm(UsedTwice())
    assert fold_batch_norm(network, torch.rand(2, 3, 8, 8)) is not None
    found = accelerate(network, (3, 8, 8))
    assert "batch norm folded" not in found.used
    assert "not folded: its logits differ" in found.notes[0]
    torch.manual_seed(1)
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x), network(x))


class ReadsItsNorm(Residual):
    def forward(self, x):
        return super().forward(x) * self.norm.weight.mean()


class OneOrder(Residual):
    """Takes no images in channels-last order."""

    def forward(self, x):
        return super().forward(x.view(len(x), -1).view(x.shape))


@pytest.mark.parametrize(
    ("make", "used", "note"),
    [
        (Residual, ("batch norm folded", "channels last"), None),
        (ReadsItsNorm, ("channels last",), "then raises AttributeError"),
        (OneOrder, ("batch norm folded",), "channels are not last: the network then raises"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (), None),
        (lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten()), (), None),  # all work on three
    ],
)
def test_what_does_not_work_is_noted_and_left_out(make, used, note):
    network = warm(make())
    found = accelerate(network, (3, 8, 8))
    assert found.used == used
    assert (note in found.notes[0]) if note else found.notes == ()
    torch.manual_seed(1)
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(found.forward(x), network(x), rtol=1e-4, atol=1e-5)


def test_the_network_is_left_as_it_was():
    network = warm(Residual()).train()
    wanted = [p.requires_grad for p in network.parameters()]
    before = copy.deepcopy(network.state_dict())
    accelerate(network, (3, 8, 8))
    assert network.training
    assert [p.requires_grad for p in network.parameters()] == wanted
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


class Delicate(Residual):
    """What is left of a large number minus another large one."""

    def forward(self, x):
        h = self.first(x).mean((2, 3))
        return self.head(self.head.weight.new_tensor(1e4) * (h - h.round(decimals=2)))


class Widening(Residual):
    """Goes on in float32, which a layer in bfloat16 does not take."""

    def forward(self, x):
        return super().forward(x.float())


def test_bf16_is_near_and_its_weights_are_rounded_once():
    network = warm(Residual())
    found = accelerate(network, (3, 8, 8), "bf16")
    assert (found.precision, found.used[-1]) == ("bf16", "bf16")
    assert {p.dtype for p in found.forward.parameters()} == {torch.bfloat16}
    torch.manual_seed(1)
    x = torch.rand(64, 3, 8, 8)
    with torch.no_grad():
        logits, rounded = network(x), found.forward(x)
    assert rounded.dtype == torch.float32
    assert 1e-5 < float((rounded - logits).abs().max() / logits.abs().max()) < 0.05


def test_the_input_normalisation_is_not_rounded():
    model = load(samples_dir() / "robust.pt", normalize="mnist", device="cpu")
    found = accelerate(model, (1, 8, 8), "bf16")
    kinds = {name.rpartition(".")[2]: value.dtype for name, value in found.forward.named_buffers()}
    assert found.precision == "bf16"
    assert kinds["mean"] == kinds["std"] == torch.float32
    assert {p.dtype for p in found.forward.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(("make", "why"), [(Delicate, "differ"), (Widening, "RuntimeError")])
def test_a_network_that_bf16_ruins_or_stops_goes_without(make, why):
    found = accelerate(warm(make()), (3, 8, 8), "bf16")
    assert found.precision == "fp32"
    assert "bf16" not in found.used
    assert any("bf16 is not used: " in note and why in note for note in found.notes)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_a_radius_that_vanishes_in_bf16_is_not_searched_in_it(robust, norm):
    x = load_examples("digits", n=8).x
    usual = {"linf": 0.15, "l2": 1.0, "l1": 6.0}[norm]
    for eps, kind in ((usual, "bf16"), (usual / 200, "fp32")):
        found = accelerate(robust, (1, 8, 8), "bf16", examples=x, threat=ThreatModel(norm, eps))
        assert found.precision == kind
        refused = [note for note in found.notes if "bf16 is not used: what perturb" in note]
        assert len(refused) == (kind == "fp32")


class Bright(UsedTwice):
    """What goes past the norm is that of images with a white pixel, which noise has none of."""

    def forward(self, x):
        h = self.conv(x)
        out, white = self.norm(h).mean((2, 3)), (x >= 1).flatten(1).any(1)
        return out + white[:, None] * h.mean((2, 3)) if white.any() else out


@pytest.mark.parametrize("given", ["examples", "perturbed"])
def test_forms_are_compared_on_examples_and_around_them(given):
    network = warm(Bright())
    assert accelerate(network, (3, 8, 8)).folded is not None
    x = torch.ones(4, 3, 8, 8) - (0.0 if given == "examples" else 0.05)
    threat = None if given == "examples" else ThreatModel("linf", 0.1)
    found = accelerate(network, (3, 8, 8), examples=x, threat=threat)
    assert found.folded is None
    assert "batch norm is not folded" in found.notes[0]


def test_auto_is_bf16_on_a_cpu_where_sums_are_long(monkeypatch):
    narrow, wide = (nn.Sequential(nn.Flatten(), nn.Linear(n, 9)) for n in (192, 300))
    shape = {narrow: (3, 8, 8), wide: (3, 10, 10)}
    assert {accelerate(net, shape[net]).precision for net in shape} == {"fp32"}
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)
    assert accelerate(wide, shape[wide]).precision == "bf16"
    plain = accelerate(narrow, shape[narrow])
    assert (plain.precision, plain.notes) == ("fp32", ())
    assert accelerate(narrow, shape[narrow], "bf16").precision == "bf16"


def test_precisions_are_tried_fastest_first(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: True)
    assert precision.candidates("auto", cuda) == ("bf16", "tf32", "fp32")
    assert precision.candidates("auto", cpu) == ("bf16", "fp32")
    monkeypatch.setattr(precision, "multiplies_bf16", lambda device: False)
    assert precision.candidates("auto", cuda) == precision.candidates("auto", cpu) == ("fp32",)
    assert precision.candidates("tf32", cuda) == ("tf32", "fp32")
    assert precision.candidates("tf32", cpu) == ("fp32",)
    assert precision.candidates("bf16", cpu) == ("bf16", "fp32")
    assert precision.coarsest(["fp32", "bf16", "tf32"]) == "bf16"
    assert precision.coarsest([]) == "fp32"


@pytest.mark.parametrize("kind", ["fp32", "tf32", "bf16"])
def test_arithmetic_is_set_inside_and_given_back(kind):
    def now():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32

    before = now()
    with precision.arithmetic(kind):
        assert now() == (("highest", False) if kind == "fp32" else ("high", True))
    assert now() == before
