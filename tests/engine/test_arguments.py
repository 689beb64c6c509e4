"""Every public function refuses at its door what cannot be meant, and names the argument."""

import inspect
import typing
from typing import Literal

import pytest
import torch
from torch import nn

from robaudit import attacks, curvature, flatness
from robaudit.engine.arguments import check_literal, checked
from robaudit.errors import UsageError
from robaudit.types import ThreatModel

BALL = ThreatModel("linf", 0.1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.ReLU(), nn.Linear(5, 3)).eval()


def given(function, **changes):
    """What the function takes, with some of it changed."""
    torch.manual_seed(1)
    x = torch.rand(4, 1, 4, 4)
    whole = {"model": network(), "x": x, "y": torch.tensor([0, 1, 2, 0]), "threat": BALL}
    whole["x_adv"] = x.clone()
    names = inspect.signature(function).parameters
    return {name: value for name, value in (whole | changes).items() if name in names}


ROOMS = (attacks, curvature, flatness)
FUNCTIONS = [
    pytest.param(function, id=f"{room.__name__.rpartition('.')[2]}.{name}")
    for room in ROOMS
    for name in room.__all__
    if inspect.isfunction(function := getattr(room, name))
    and {"model", "x"} <= inspect.signature(function).parameters.keys()
]
TAKE_LABELS = [f for f in FUNCTIONS if "y" in inspect.signature(f.values[0]).parameters]
ATTACKS = [f for f in FUNCTIONS if f.id.startswith("attacks")]


def words_of(hint):
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    return [word for part in typing.get_args(hint) for word in words_of(part)]


LITERALS = [
    pytest.param(function, name, words, id=f"{room.__name__.rpartition('.')[2]}.{title}-{name}")
    for room in ROOMS
    for title in room.__all__
    if inspect.isfunction(function := getattr(room, title)) and hasattr(function, "__wrapped__")
    for name, hint in typing.get_type_hints(function.__wrapped__).items()
    if name != "return" and (words := [w for w in words_of(hint) if isinstance(w, str)])
]


@pytest.mark.parametrize(("function", "name", "words"), LITERALS)
def test_a_misspelt_literal_names_the_argument_and_the_nearest_word(function, name, words):
    nearly = words[0][:-1] + "q"
    with pytest.raises(UsageError) as caught:
        function(**given(function), **{name: nearly})
    assert f"{name} cannot be {nearly!r}" in str(caught.value)
    assert words[0] in f"{caught.value.message} {caught.value.advice}"


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "said"),
    [
        ([[0.0]], "not a torch.Tensor"),
        (torch.rand(4), "shape"),
        (torch.zeros(0, 1, 4, 4), "no image"),
        (torch.zeros(4, 1, 4, 4, dtype=torch.uint8), "uint8"),
    ],
)
def test_images(function, x, said):
    with pytest.raises(UsageError, match=rf"\bx\b.*{said}"):
        function(**given(function, x=x))


@pytest.mark.parametrize("function", ATTACKS)
def test_pixels_that_are_no_numbers(function):
    with pytest.raises(UsageError, match="x has numbers that are not finite"):
        function(**given(function, x=torch.full((4, 1, 4, 4), torch.nan)))


@pytest.mark.parametrize("function", ATTACKS)
@pytest.mark.parametrize("scale", [255.0, -1.0])
def test_pixels_beyond_the_box(function, scale):
    with pytest.raises(UsageError, match=r"x lies in .* not in \[0, 1\]") as caught:
        function(**given(function, x=scale * torch.rand(4, 1, 4, 4)))
    assert ("255" in caught.value.advice) == (scale > 1)


@pytest.mark.parametrize("function", TAKE_LABELS)
@pytest.mark.parametrize(
    ("y", "said"),
    [
        (torch.tensor([0, 1, 2, 3]), "label 3, but the model has 3 outputs"),
        (torch.tensor([0, 1, 2, -1]), "-1"),
        (torch.tensor([0, 1, 2]), "shape"),
        (torch.tensor([0.0, 1, 2, 0]), "float32"),
        ([0, 1, 2, 0], "list"),
    ],
)
def test_labels(function, y, said):
    with pytest.raises(UsageError, match=rf"\by\b.*{said}"):
        function(**given(function, y=y))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("restarts", 0),
        ("index", torch.zeros(3).long()),
        ("threat", ("linf", 1)),
        ("steps", -3),
        ("step_size", -1.0),
        ("seed", "a"),
    ],
    ids=["restarts", "index", "threat", "steps", "step_size", "seed"],
)
def test_counts_places_and_threats(name, value):
    with pytest.raises(UsageError, match=name):
        attacks.pgd(**given(attacks.pgd, **{name: value}))


def test_what_a_checked_function_calls_is_not_checked_again():
    passes = []

    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network()

        def forward(self, x):
            passes.append(len(x))
            return self.network(x)

    @checked
    def inner(model, x, y):
        return model(x)

    @checked
    def outer(model, x, y):
        return inner(model, x, y)

    whole = given(inner, model=Counting())
    outer(**whole)
    assert passes == [2, 4]


def test_the_check_leaves_no_trace():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whole = given(_nothing, model=model)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    checked(_nothing)(**whole)
    assert torch.equal(torch.rand(2), expected)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def _nothing(model, x, y):
    return None


def test_a_union_with_a_literal_takes_its_other_kinds():
    check_literal("batch_size", 64, int | Literal["auto"])
    check_literal("batch_size", None, Literal["auto"] | None)
    with pytest.raises(UsageError, match="did you mean 'auto'"):
        check_literal("batch_size", "autos", int | Literal["auto"])
