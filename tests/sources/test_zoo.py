"""Every entry of RobustBench's zoo, where RobustBench is installed: builds, loads its own weights,
and gives the logits of the network they came from."""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

if find_spec("robustbench") is None or find_spec("timm") is None:
    pytest.skip("RobustBench is not installed", allow_module_level=True)

from support.zoo import (
    LARGE,
    parameters,
    parts,
    published_form,
    sketch,
    table,
    table_file,
    unsettle,
    write_files,
)

from robaudit.checkpoints.sources import open_source
from robaudit.checkpoints.sources.arranging import arrange
from robaudit.checkpoints.sources.catalogue import CLASSES, catalogue
from robaudit.checkpoints.sources.published import published
from robaudit.checkpoints.sources.robustbench import build
from robaudit.checkpoints.sources.zoo import zoo_importable, zoo_module

TOLERATED = {"mu", "sigma", "mean", "std", "num_batches_tracked"}
ENTRIES = {entry.text: entry for entry in catalogue()}
of_the_table = pytest.mark.skipif(
    f"RobustBench {version('robustbench')}'s" not in table_file().read_text(encoding="utf-8"),
    reason="the committed table is of another RobustBench",
)


def test_the_catalogue_is_the_zoos_own_tables():
    with zoo_importable():
        tables = zoo_module("models").model_dicts
        theirs = {
            (dataset.value, threat.value, name): fields
            for dataset, by_threat in tables.items()
            for threat, entries in by_threat.items()
            for name, fields in entries.items()
        }
    assert list(theirs) == [(e.dataset, e.threat, e.name) for e in catalogue()]
    for entry in catalogue():
        fields = theirs[entry.dataset, entry.threat, entry.name]
        ids = fields["gdrive_id"]
        assert entry.ensemble == isinstance(ids, list)
        assert entry.drive_ids == (tuple(ids) if isinstance(ids, list) else (ids,) if ids else ())
        assert entry.preprocessing == fields.get("preprocessing")
    assert not [name for name in sys.modules if name.startswith("robustbench")]


def test_robustbench_registers_in_timm_just_those_without_a_file_of_their_own():
    with zoo_importable():
        zoo_module("models")
        import timm

        registered = {e.text for e in catalogue() if timm.is_model(e.timm_name)}
    standard = {e.text for e in catalogue() if e.dataset == "imagenet" and e.name == "Standard_R50"}
    assert registered | standard == {e.text for e in catalogue() if not e.drive_ids}


def test_every_entry_has_the_leaderboards_accuracy():
    for entry in catalogue():
        facts = published(entry)
        measured = "corruptions_acc" if entry.threat == "corruptions" else "robust_acc"
        assert 0 <= facts[measured] < facts["clean_acc"] <= 1, entry.text
    carmon = published(ENTRIES["robustbench:cifar10/Linf/Carmon2019Unlabeled"])
    assert (carmon["clean_acc"], carmon["robust_acc"], carmon["eps"]) == (0.8969, 0.5953, "8/255")


def test_keys_of_an_older_timm_are_converted():
    network = sketch(ENTRIES["robustbench:imagenet/Linf/Mo2022When_Swin-B"])
    old = {}
    for key, value in network.get_submodule("model").state_dict().items():
        if ".downsample." in key:
            layers, place, rest = key.split(".", 2)
            key = f"{layers}.{int(place) - 1}.{rest}"
        old[f"module.{key.replace('head.fc.', 'head.')}"] = value
    arranged = arrange(network, old)
    assert (arranged.misfits, arranged.converted) == (0, True)
    assert {k: v.shape for k, v in arranged.state.items()} == {
        k: v.shape for k, v in network.state_dict().items()
    }
    assert any("older timm" in remark for remark in arranged.remarks)
    old.pop("module.head.bias")
    assert arrange(network, old).misfits == 1


@of_the_table
def test_the_documented_table_lists_the_installed_zoo():
    assert len(ENTRIES) >= 160
    committed = table_file().read_text(encoding="utf-8")
    names = [line.split("`")[1] for line in committed.splitlines() if line.startswith("| `")]
    assert names == [f"{e.dataset}/{e.threat}/{e.name}" for e in catalogue()]


@of_the_table
@pytest.mark.slow
def test_the_documented_table_is_what_it_would_be_now():
    assert table() in table_file().read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("text", ENTRIES)
def test_loads_its_own_weights(text: str, tmp_path: Path):
    entry = ENTRIES[text]
    form = list(ENTRIES).index(text) % 4
    if entry.name.startswith("Modas2021"):
        form %= 3  # its file must have the normalisation
    network = sketch(entry)
    if parameters(network) >= LARGE:
        check_keys(entry, network, form)
    else:
        check_logits(entry, form, tmp_path)


def check_keys(entry, network, form):
    """The larger ones, without memory: the file's keys lead to the network's own."""
    for part in (part for of_file in parts(entry, network) for part in of_file):
        own = part.network.state_dict()
        content = published_form(part.network, form if part.member is None else 0)
        held = content.get("state_dict", content.get("last", content))
        arranged = arrange(part.network, dict(held))
        assert arranged.misfits == 0
        assert {k: v.shape for k, v in arranged.state.items()} == {
            k: v.shape for k, v in own.items()
        }
        needed = [key for key in held if key.rpartition(".")[2] not in TOLERATED]
        for spoiled in (needed[0], needed[-1]):
            lacking = {key: value for key, value in held.items() if key != spoiled}
            assert arrange(part.network, lacking).misfits > 0
            other = {**held, spoiled: torch.empty(3, 7, 1, 5, 2, device="meta")}
            assert arrange(part.network, other).misfits > 0


def check_logits(entry, form, folder):
    torch.manual_seed(1)
    made = build(entry)
    unsettle(made)
    write_files(entry, made, folder, form)
    torch.manual_seed(2)  # what is not loaded differs
    opened = open_source(entry.text, model_dir=folder)
    for path in folder.rglob("*.pt"):
        path.unlink()
    own, loaded = made.state_dict(), opened.network.state_dict()
    assert own.keys() == loaded.keys()
    assert all(torch.equal(own[key], loaded[key]) for key in own)
    size = 32 if entry.dataset != "imagenet" else 224
    x = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = opened.network(x)
        assert torch.equal(logits, made(x))
    assert logits.shape == (2, CLASSES[entry.dataset])
    assert opened.normalization is None
