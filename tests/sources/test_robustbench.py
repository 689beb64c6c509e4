"""RobustBench's entries by name, on a small package with its layout and a broken ``__init__``."""

import hashlib
import importlib
import subprocess
import sys
import types

import pytest
import torch
from support import small_zoo
from support.small_zoo import NORMAL, PLAIN, logits, made, prefixed, save

from robaudit.checkpoints.sources import files_of, is_source, open_source
from robaudit.errors import CheckpointError, UsageError


@pytest.fixture(autouse=True)
def small_robustbench(tmp_path, monkeypatch):
    with small_zoo.installed(tmp_path / "site", monkeypatch):
        yield


FORMS = {
    "the state dict alone": lambda own: own,
    "under state_dict": lambda own: {"state_dict": own, "epoch": 7},
    "of DataParallel": lambda own: {"state_dict": prefixed("module.", own)},
    "of a wrapper": lambda own: prefixed("model.", own),
    "of both": lambda own: {"state_dict": prefixed("module.model.", own)},
    "last and best": lambda own: {"last": own, "best": {k: v + 1 for k, v in own.items()}},
}


@pytest.mark.parametrize("form", FORMS)
def test_a_file_in_any_form_of_the_zoo_gives_the_networks_logits(form, models):
    network = made(PLAIN)
    path = save(FORMS[form](network.state_dict()), models, PLAIN)
    opened = open_source(PLAIN, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))
    assert not opened.network.training
    assert opened.normalization is None
    assert opened.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert files_of(PLAIN, model_dir=models) == (path,)


def test_which_of_two_state_dicts_was_taken_is_said(models):
    save(FORMS["last and best"](made(PLAIN).state_dict()), models, PLAIN)
    (said,) = open_source(PLAIN, model_dir=models).remarks
    assert "'last' is taken" in said
    assert "--member" not in said  # an option for files


def test_a_network_that_wants_a_gpu_is_made_without_one(models):
    text = "robustbench:cifar10/Linf/Gpu2023Net"
    network = made(text)
    save(network.state_dict(), models, text)
    opened = open_source(text, model_dir=models)
    assert opened.network.shift.device.type == "cpu"
    assert torch.equal(logits(opened.network), logits(network))


def test_the_default_folder_is_robustbenchs_own(models, monkeypatch):
    network = made(PLAIN)
    save(network.state_dict(), models, PLAIN)
    monkeypatch.chdir(models.parent)
    assert torch.equal(logits(open_source(PLAIN).network), logits(network))


def test_building_draws_nothing_from_the_callers_random_state_and_prints_nothing(models, capsys):
    save(made(PLAIN).state_dict(), models, PLAIN)
    before = torch.get_rng_state()
    open_source(PLAIN, model_dir=models)
    assert torch.equal(before, torch.get_rng_state())
    assert capsys.readouterr().out == ""


def test_the_package_is_left_to_the_user_as_it_was(models):
    save(made(PLAIN).state_dict(), models, PLAIN)
    open_source(PLAIN, model_dir=models)
    assert not [name for name in sys.modules if name.startswith("robustbench")]
    with pytest.raises(ImportError, match="pkg_resources_that_are_gone"):
        importlib.import_module("robustbench")


def test_a_package_the_user_has_imported_is_used_and_kept(models):
    save(made(PLAIN).state_dict(), models, PLAIN)
    theirs = types.ModuleType("robustbench")
    theirs.__path__ = [str(models.parent / "site" / "robustbench")]
    sys.modules["robustbench"] = theirs
    opened = open_source(PLAIN, model_dir=models)
    assert sys.modules["robustbench"] is theirs
    assert type(opened.network) is sys.modules["robustbench.model_zoo.nets"].Small


def test_the_second_network_is_of_the_same_classes_as_the_first(models):
    save(made(PLAIN).state_dict(), models, PLAIN)
    first, second = (open_source(PLAIN, model_dir=models).network for _ in range(2))
    assert type(first) is type(second)


def test_a_normalisation_only_the_network_has_is_kept_and_said(models):
    network = made(NORMAL)
    bare = {k: v for k, v in network.state_dict().items() if k not in ("mu", "sigma")}
    save(bare, models, NORMAL)
    opened = open_source(NORMAL, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))
    assert any("mu, sigma" in remark for remark in opened.remarks)


def test_a_normalisation_in_the_file_is_taken(models):
    network = made(NORMAL)
    network.mu.fill_(0.25)
    save(prefixed("module.", network.state_dict()), models, NORMAL)
    assert torch.equal(logits(open_source(NORMAL, model_dir=models).network), logits(network))


def test_half_a_normalisation_is_not_made_whole(models):
    bare = {k: v for k, v in made(NORMAL).state_dict().items() if k != "mu"}
    save(bare, models, NORMAL)
    with pytest.raises(CheckpointError, match=r"1 missing \(mu\)"):
        open_source(NORMAL, model_dir=models)


def test_a_placeholder_is_not_taken_for_a_normalisation(models):
    text = "robustbench:cifar10/Linf/Modas2021PRIMEResNet18"
    network = made(text)
    bare = {k: v for k, v in network.state_dict().items() if k not in ("mu", "sigma")}
    save(bare, models, text)
    with pytest.raises(CheckpointError, match="lacks the normalisation"):
        open_source(text, model_dir=models)


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
def test_the_network_within_a_normalised_one_is_found(prefix, models):
    text = "robustbench:imagenet/Linf/Big2021Net"
    network = made(text)
    save({"state_dict": prefixed(prefix, network.model.state_dict())}, models, text)
    opened = open_source(text, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))
    assert any("Res256Crop224" in remark for remark in opened.remarks)


def test_copies_and_scores_beside_the_weights_are_left_out_and_said(models):
    network = made(PLAIN)
    own = network.state_dict()
    beside = {
        "hl1.0.weight": own["conv.weight"],
        "conv.scores": torch.rand_like(own["conv.weight"]),
    }
    save({**own, **beside}, models, PLAIN)
    opened = open_source(PLAIN, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))
    assert any("hl1.0.weight" in r and "conv.scores" in r for r in opened.remarks)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda own: own.pop("fc.bias"), "missing"),
        (lambda own: own.update({"fc2.bias": torch.ones(10)}), "unexpected"),
        (lambda own: own.update({"fc.bias": torch.ones(3)}), "fc.bias"),
        (lambda own: own.pop("bn.running_mean"), "missing"),
    ],
)
def test_weights_of_another_network_are_refused(spoil, said, models):
    own = made(PLAIN).state_dict()
    spoil(own)
    save(own, models, PLAIN)
    with pytest.raises(CheckpointError, match=said) as caught:
        open_source(PLAIN, model_dir=models)
    assert "Plain2020Net.pt" in caught.value.message


def test_an_ensemble_loads_each_file_into_its_network(models):
    text = "robustbench:cifar10/Linf/Deck2021Net"
    network = made(text)
    paths = [
        save({"state_dict": prefixed("module.", part.state_dict())}, models, text, f".pt_m{i}.pt")
        for i, part in enumerate(network.models)
    ]
    opened = open_source(text, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.name}\n" for p in paths]
    assert opened.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert files_of(text, model_dir=models) == tuple(paths)
    paths[1].unlink()
    with pytest.raises(CheckpointError, match=r"Deck2021Net\.pt_m1\.pt"):
        open_source(text, model_dir=models)


def test_a_mixing_network_comes_with_its_batch_norm_from_one_file(models):
    text = "robustbench:cifar10/Linf/Bai2023Improving_edm"
    network = made(text)
    mixed = network.comp_model
    contents = [
        mixed.models[0].state_dict(),
        prefixed("module.", mixed.models[1].state_dict()),
        {"model": mixed.policy_net.state_dict(), "bn": mixed.bn.state_dict()},
    ]
    for i, content in enumerate(contents):
        save(content, models, text, f".pt_m{i}.pt")
    opened = open_source(text, model_dir=models)
    assert torch.equal(logits(opened.network), logits(network))


def test_a_mixing_file_without_its_batch_norm_is_refused(models):
    text = "robustbench:cifar10/Linf/Bai2023Improving_edm"
    mixed = made(text).comp_model
    for i, part in enumerate((*mixed.models, mixed.policy_net)):
        save({"model": part.state_dict()}, models, text, f".pt_m{i}.pt")
    with pytest.raises(CheckpointError, match="no member 'bn'"):
        open_source(text, model_dir=models)


@pytest.mark.parametrize(
    ("text", "said", "advised"),
    [
        ("cifar10/Linf/Plain2020Nte", "'Plain2020Net'", "Modas2021"),
        ("cifar10/Linf/plain2020net", "'Plain2020Net'", "Known"),
        ("cifar10/Linf/Plain2020Net_L2", "Plain2020Net", "robustbench:cifar10/L2/Plain2020Net_L2"),
        ("cifar11/Linf/Plain2020Net", "'cifar10'", "cifar100, imagenet"),
        ("cifar10/Linv/Plain2020Net", "'Linf'", "Linf, L2"),
        ("imagenet/L2/Big2021Net", "unknown threat model of imagenet 'L2'", "Linf"),
        ("cifar10/Plain2020Net", "names no network", "DATASET/THREAT/NAME"),
        ("", "names no network", "DATASET/THREAT/NAME"),
    ],
)
def test_a_name_that_is_none_is_met_with_the_nearest(text, said, advised):
    for open_it in (open_source, files_of):
        with pytest.raises(UsageError) as caught:
            open_it(f"robustbench:{text}")
        assert said in caught.value.message
        assert advised in (caught.value.advice or "")


def test_threat_models_are_found_however_they_are_written(models):
    network = made(PLAIN)
    path = save(network.state_dict(), models, PLAIN)
    assert files_of("robustbench:CIFAR10/linf/Plain2020Net", model_dir=models) == (path,)


def test_without_robustbench_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("robaudit.checkpoints.sources.catalogue.find_spec", lambda _: None)
    with small_zoo.fresh(monkeypatch), pytest.raises(UsageError) as caught:
        open_source(PLAIN)
    assert "pip install 'robaudit[robustbench]'" in (caught.value.advice or "")


def test_the_files_of_an_entry_are_found_without_torch(models, tmp_path):
    path = models / "cifar10" / "Linf" / "Plain2020Net.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    code = (
        "import sys; from robaudit.checkpoints.sources import files_of, is_source;"
        f"print(files_of({PLAIN!r}, model_dir={str(models)!r})[0].name);"
        "assert 'torch' not in sys.modules and 'robustbench' not in sys.modules"
    )
    paths = ["", str(tmp_path / "site"), *sys.path]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}; {code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.stdout, run.stderr) == ("Plain2020Net.pt\n", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PLAIN, True),
        ("timm:resnet50", True),
        ("torchvision:resnet50:IMAGENET1K_V1", True),
        ("model.pt", False),
        ("robustbench", False),
        ("C:/models/timm.pt", False),
    ],
)
def test_a_source_is_told_from_a_file(text, expected):
    assert is_source(text) is expected


def test_another_scheme_is_refused():
    for open_it in (open_source, files_of):
        with pytest.raises(UsageError, match="unknown source"):
            open_it("hub:resnet50")
