"""Files of RobustBench's entries that are missing, and downloads."""

import sys
from pathlib import Path

import pytest
import torch
from support import small_zoo
from support.small_zoo import PLAIN, logits, made, save

from robaudit.checkpoints.sources import open_source
from robaudit.errors import CheckpointError


@pytest.fixture(autouse=True)
def small_robustbench(tmp_path, monkeypatch):
    with small_zoo.installed(tmp_path / "site", monkeypatch):
        yield


def test_a_missing_file_is_named_with_both_ways_to_it(models):
    with pytest.raises(CheckpointError) as caught:
        open_source(PLAIN, model_dir=models)
    assert str(models / "cifar10" / "Linf" / "Plain2020Net.pt") in caught.value.message
    assert "--download" in (caught.value.advice or "")
    assert "--model-dir" in (caught.value.advice or "")
    assert not models.exists()


def test_an_error_page_in_the_files_place_is_recognised(models):
    path = models / "cifar10" / "Linf" / "Plain2020Net.pt"
    path.parent.mkdir(parents=True)
    path.write_text("<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>")
    with pytest.raises(CheckpointError, match="HTML page"):
        open_source(PLAIN, model_dir=models)


def test_what_the_installed_packages_cannot_build_is_said(models):
    text = "robustbench:cifar10/Linf/Broken2022Net"
    save({"a": torch.ones(1)}, models, text)
    with pytest.raises(CheckpointError, match="this timm is too new"):
        open_source(text, model_dir=models)


class Drive:
    """A stand-in for gdown: writes what it was given, and remembers what it was asked."""

    def __init__(self, write):
        self.write, self.asked = write, []

    def download(self, *, id, output, quiet):
        self.asked.append(id)
        sys.stdout.write("on stdout")
        self.write(output)
        return output


def test_a_download_is_put_where_robustbench_keeps_it(models, monkeypatch, capsys):
    network = made(PLAIN)
    drive = Drive(lambda path: torch.save(network.state_dict(), path))
    monkeypatch.setitem(sys.modules, "gdown", drive)
    opened = open_source(PLAIN, model_dir=models, download=True)
    assert torch.equal(logits(opened.network), logits(network))
    assert drive.asked == ["plain-id"]
    place = models / "cifar10" / "Linf"
    assert [path.name for path in place.iterdir()] == ["Plain2020Net.pt"]
    assert capsys.readouterr().out == ""
    open_source(PLAIN, model_dir=models, download=True)
    assert drive.asked == ["plain-id"]  # the second time it was there


def test_only_the_lacking_files_of_an_ensemble_are_fetched(models, monkeypatch):
    text = "robustbench:cifar10/Linf/Deck2021Net"
    network = made(text)
    save(network.models[0].state_dict(), models, text, ".pt_m0.pt")
    drive = Drive(lambda path: torch.save(network.models[1].state_dict(), path))
    monkeypatch.setitem(sys.modules, "gdown", drive)
    open_source(text, model_dir=models, download=True)
    assert drive.asked == ["b", "c"]


def write_page(path):
    with Path(path).open("w") as file:
        file.write("<html><head><title>Quota exceeded</title></head></html>")


def stop_half_way(path):
    with Path(path).open("wb") as file:
        file.write(b"PK\x03\x04 half a file")
    raise OSError("connection lost")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_page, "HTML page"),
        (stop_half_way, "connection lost"),
        (lambda path: None, "no file came"),
        (lambda path: Path(path).touch(), "is empty"),
    ],
)
def test_a_failed_download_leaves_nothing_and_says_why(write, said, models, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", Drive(write))
    with pytest.raises(CheckpointError, match=said) as caught:
        open_source(PLAIN, model_dir=models, download=True)
    assert "could not be fetched" in caught.value.message
    assert "plain-id" in (caught.value.advice or "")
    assert not list((models / "cifar10" / "Linf").iterdir())


def test_nothing_is_fetched_unasked(models, monkeypatch):
    drive = Drive(write_page)
    monkeypatch.setitem(sys.modules, "gdown", drive)
    with pytest.raises(CheckpointError):
        open_source(PLAIN, model_dir=models)
    assert drive.asked == []
