"""Every network in every container and under every prefix: identified, with identical logits."""

from pathlib import Path

import pytest
import torch
from support import corpus

from robaudit.checkpoints import inspect_file, load
from robaudit.checkpoints.architectures.parsing import parse_arch
from robaudit.types import Examples

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "checkpoints.md"
NETWORKS = {}


def network_of(family):
    if family not in NETWORKS:
        NETWORKS[family] = corpus.build(family)
    return NETWORKS[family]


# A second each, and hundreds: the smallest networks alone are quick.
FAMILIES = [
    pytest.param(
        family,
        id=family.label,
        marks=() if family.label in ("digits_resnet", "small_cnn") else pytest.mark.slow,
    )
    for family in corpus.FAMILIES
]


def opened(path, family, expected, **options):
    """The classifier, with the labelled images that decide between variants."""
    x = corpus.images(family, 64)
    with torch.no_grad():
        y = torch.cat([expected(part) for part in x.split(16)]).argmax(1)
    examples = Examples(x, y, torch.arange(64), "corpus", "test", "none")
    return load(path, device="cpu", examples=examples, guess=True, **options)


def check(path, family, expected, **options):
    found = opened(path, family, expected, **options)
    assert found.origin.architecture.partition("(")[0] == parse_arch(family.label)[0]
    assert found.origin.identified_by == "its keys and shapes"
    x = corpus.images(family)
    with torch.no_grad():
        assert torch.equal(found(x), expected(x))
    return found


@pytest.mark.parametrize("container", corpus.CONTAINERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_in_every_container(family, container, tmp_path):
    network = network_of(family)
    write, options = corpus.CONTAINERS[container]
    path = write(network, tmp_path, family)
    check(path, family, network, normalize="none", **options)


@pytest.mark.parametrize("prefix", corpus.PREFIXES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_under_every_prefix(family, prefix, tmp_path):
    network = network_of(family)
    path = tmp_path / "model.pt"
    torch.save({"state_dict": corpus.with_prefix(network, prefix, family)}, path)
    if prefix in corpus.NORMALIZED:
        whole = torch.nn.Sequential(corpus._normalized(network, family), network)
        found = check(path, family, whole)
        assert found.origin.normalization == ("cifar10" if family.image[0] == 3 else "mnist")
        assert "the file's" in found.origin.normalized_by
    else:
        check(path, family, network, normalize="none")
    seen = inspect_file(path)
    assert seen.architecture.partition("(")[0] == parse_arch(family.label)[0]


@pytest.mark.slow
@pytest.mark.parametrize("family", corpus.LIBRARY, ids=lambda family: family.label)
def test_the_librarys_networks(family, tmp_path):
    network = corpus.build(family)
    path = tmp_path / "model.pt"
    torch.save(corpus.with_prefix(network, "module.", family), path)
    found = load(path, device="cpu", normalize="none")
    assert parse_arch(found.origin.architecture) == parse_arch(family.label)
    x = corpus.images(family, 2)
    with torch.no_grad():
        assert torch.equal(found(x), network(x))


def test_the_documentation_lists_the_corpus():
    assert corpus.table() in PAGE.read_text("utf-8")
