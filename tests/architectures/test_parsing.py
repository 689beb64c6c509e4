"""How architectures are written, read back and refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robaudit.checkpoints.architectures import ARCHITECTURES, parse_arch

NAMES = st.sampled_from(
    [*ARCHITECTURES, "torchvision:resnet50", "timm:vit_base_patch16_224.augreg"]
)
WORDS = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[0-9]{1,3}(:[0-9]{1,3})?)*", fullmatch=True)
ARGUMENTS = st.dictionaries(
    st.from_regex(r"[a-z_][a-z_0-9]{0,8}", fullmatch=True),
    st.integers(-(10**9) + 1, 10**9 - 1) | WORDS,
    max_size=4,
)


@given(NAMES, ARGUMENTS)
def test_what_is_written_is_read_back(name, arguments):
    inside = ", ".join(f"{key}={value}" for key, value in arguments.items())
    assert parse_arch(f"{name}({inside})") == (name, arguments)
    assert parse_arch(f" {name} ( {inside} ) ") == (name, arguments)


def test_labels_are_read_back():
    candidate = ARCHITECTURES["wide_resnet"].candidate(
        {"depth": 34, "width": 10, "classes": 10, "channels": 3, "activation": "silu"}
    )
    assert candidate.label == "wide_resnet(depth=34, width=10, activation=silu)"
    assert parse_arch(candidate.label) == (
        "wide_resnet",
        {"depth": 34, "width": 10, "activation": "silu"},
    )


@pytest.mark.parametrize(
    "text",
    ["", "()", "resnet(", "resnet)", "resnet(depth)", "resnet(depth=)", "resnet(=18)", "a b",
     "resnet(depth=18 width=3)", "resnet(depth=18)(width=3)", "resnet(depth=1, depth=2)",
     "resnet(depth=__import__('os'))", "resnet(a=1, , b=2)"],
)  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(ValueError):
        parse_arch(text)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        name, arguments = parse_arch(text)
    except ValueError:
        return
    assert name
    assert all(isinstance(value, int | str) for value in arguments.values())
