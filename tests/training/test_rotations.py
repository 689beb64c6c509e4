"""Self-supervision by rotations: a step by hand, the head's examples, and what is refused."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robaudit.errors import UsageError
from robaudit.training import At, Awp, Method, Rotations, Standard, Taylor, Trades, TrH, maximise
from robaudit.training.fitting import fit
from robaudit.training.recipe import Recipe, read_recipe
from robaudit.training.rotations import turned, turns
from robaudit.types import ThreatModel

LINF = ThreatModel("linf", 0.1)


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
    )


@pytest.fixture
def batch():
    x = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 1, 2, 0, 1, 2])


def test_turned_images_are_numpys_and_every_turn_has_its_label(batch):
    x, _ = batch
    expected = np.concatenate([np.rot90(x.numpy(), r, axes=(2, 3)) for r in range(4)])
    assert np.array_equal(turned(x).numpy(), expected)
    assert turns(turned(x)).tolist() == [0] * 6 + [1] * 6 + [2] * 6 + [3] * 6


def by_hand(net, head, x, y, generator, weight, steps):
    """Gradients of the loss on the same draws, the features from the layers themselves."""
    r = torch.tensor([0] * len(x) + [1] * len(x) + [2] * len(x) + [3] * len(x))
    copies = torch.from_numpy(
        np.concatenate([np.rot90(x.numpy(), k, axes=(2, 3)) for k in range(4)]).copy()
    )
    net.eval()
    moved = maximise(
        lambda z: F.cross_entropy(net(z), y, reduction="sum"),
        x, LINF, steps=steps, generator=generator,
    )  # fmt: skip
    others = maximise(
        lambda z: F.cross_entropy(head(net[:4](z)), r, reduction="sum"),
        copies, LINF, steps=steps, generator=generator,
    )  # fmt: skip
    net.train()
    features = net[:4](torch.cat([moved, others]))
    p = net[4](features[: len(x)]).log_softmax(1)
    q = head(features[len(x) :]).log_softmax(1)
    total = -p[range(len(x)), y].mean()
    for k in range(4):
        rows = range(k * len(x), (k + 1) * len(x))
        total = total - weight / 4 * q[rows, [k] * len(x)].mean()
    parameters = [*net.parameters(), *head.parameters()]
    return total, torch.autograd.grad(total, parameters)


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_step_has_the_gradients_of_its_formula(weight, batch):
    net, other = small_net().train(), small_net()
    rotations = Rotations.of(net, batch[0], weight=weight, seed=3)
    loss = Method(At(LINF, steps=3), rotations=rotations).descend(
        net, *batch, torch.Generator().manual_seed(2)
    )
    draw = torch.Generator().manual_seed(2)
    expected, gradients = by_hand(other, rotations.head, *batch, draw, weight, 3)
    torch.testing.assert_close(loss, expected.detach())
    parameters = [*net.parameters(), *rotations.head.parameters()]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    # The objective's examples and the turned ones were one batch of batch norm.
    torch.testing.assert_close(net[1].running_var, other[1].running_var)
    assert int(net[1].num_batches_tracked) == 1


def test_the_optimizer_trains_the_head_and_the_network_has_none(batch):
    settings = {
        "epochs": 1, "batch_size": 6, "learning_rate": 0.3, "weight_decay": 0.01, "seed": 4,
        "attack": {"steps": 2}, "rotations": {"weight": 0.7},
    }  # fmt: skip
    net, other, seen = small_net(), small_net(), []
    recipe = Recipe.model_validate(settings)
    fit(net, *batch, recipe, LINF, on_epoch=lambda epoch: seen.append(epoch.state))
    head = Rotations.of(other, batch[0], seed=4).head
    draw = torch.Generator().manual_seed(4)
    order = torch.randperm(6, generator=draw)
    _, gradients = by_hand(other, head, batch[0][order], batch[1][order], draw, 0.7, 2)
    expected = [
        w.detach() - 0.3 * (g + 0.01 * w.detach())
        for w, g in zip([*other.parameters(), *head.parameters()], gradients, strict=True)
    ]
    for found, wanted in zip([*net.parameters(), *seen[0]["head"].values()], expected, strict=True):
        torch.testing.assert_close(found.detach(), wanted)
    assert net.state_dict().keys() == other.state_dict().keys() == seen[0]["model"].keys()


@pytest.mark.parametrize(
    ("norm", "eps", "p"), [("linf", 0.1, torch.inf), ("l2", 0.5, 2), ("l1", 1.0, 1)]
)
def test_turned_examples_lie_in_the_ball_around_turned_images_and_raise_the_heads_loss(
    norm, eps, p, batch
):
    net = small_net().eval()
    rotations = Rotations.of(net, batch[0])
    objective = At(ThreatModel(norm, eps), steps=5)
    met = rotations.examples(objective, net, batch[0], torch.Generator().manual_seed(2))
    assert float((met - turned(batch[0])).flatten(1).norm(p, dim=1).max()) <= eps * (1 + 1e-5)
    assert not met.requires_grad

    @torch.no_grad()
    def loss(images):
        return float(F.cross_entropy(rotations.head(net[:4](images)), turns(images)))

    assert loss(met) > loss(turned(batch[0]))
    assert all(parameter.grad is None for parameter in rotations.head.parameters())


def test_the_seed_decides_the_heads_weights_and_draws_nothing_else(batch):
    torch.manual_seed(5)
    expected, net = torch.rand(3), small_net()
    torch.manual_seed(5)
    one, again, other = (Rotations.of(net, batch[0], seed=seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_with_standard_training_the_turned_images_are_the_images_themselves(batch):
    net = small_net()
    rotations = Rotations.of(net, batch[0])
    assert torch.equal(rotations.examples(Standard(), net, batch[0]), turned(batch[0]))


def test_early_stopped_pgd_stops_where_the_head_is_wrong(batch):
    net = small_net().eval()
    rotations = Rotations.of(net, batch[0])
    stopped, whole = (
        rotations.examples(
            At(LINF, steps=6, early_stop=stop), net, batch[0], torch.Generator().manual_seed(2)
        )
        for stop in (0, None)
    )
    with torch.no_grad():
        first = rotations.head(net[:4](turned(batch[0]))).argmax(1) == turns(stopped)
    assert bool((stopped != whole).flatten(1).any(1)[~first].any())


def test_weights_are_perturbed_against_the_objective_alone(batch):
    found = []
    for with_head in (True, False):
        net = small_net().train()
        awp = Awp(0.1)
        seen = {}

        class Kept(Awp):
            def adversary(self, model, loss, seen=seen, awp=awp):
                seen.update(awp.adversary(model, loss))
                return seen

        rotations = Rotations.of(net, batch[0]) if with_head else None
        Method(At(LINF, steps=2), awp=Kept(0.1), rotations=rotations).descend(
            net, *batch, torch.Generator().manual_seed(2)
        )
        found.append(dict(seen))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_what_has_no_such_head_is_refused(batch):
    with pytest.raises(UsageError, match="square images, not 4 x 5"):
        Rotations.of(small_net(), torch.rand(2, 1, 4, 5))
    ends = nn.Sequential(nn.Conv2d(1, 3, 4), nn.Flatten())
    with pytest.raises(UsageError, match="no top layer") as caught:
        Rotations.of(ends, batch[0])
    assert "[rotations]" in caught.value.advice
    rotations = Rotations.of(small_net(), batch[0])
    for objective, others in (
        (Trades(LINF), {}), (At(LINF), {"trh": TrH()}), (At(LINF), {"taylor": Taylor()})
    ):  # fmt: skip
        with pytest.raises(UsageError, match="standard training and AT, without TrH and Taylor"):
            Method(objective, rotations=rotations, **others)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('objective = "trades"\nepochs = 1\n[rotations]\n', r":3: .*at, not for trades"),
        ("epochs = 1\n[rotations]\n[trh]\n", r":3: \[trh\] is not there beside \[rotations\]"),
        ("epochs = 1\n[rotations]\n[taylor]\n", r":3: \[taylor\] is not there beside"),
        ("epochs = 1\n[rotations]\nweight = 0.0\n", r":3: rotations.weight: .*greater than 0"),
    ],
)
def test_a_recipe_with_rotations_that_cannot_be_is_refused_with_its_line(text, match, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=match):
        read_recipe(str(path))
