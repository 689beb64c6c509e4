"""A manifest is read whole or refused with the line and the nearest name."""

import numpy as np
import pytest

from robaudit.batch.listing import jobs_of
from robaudit.batch.manifest import manifest_of, read_manifest
from robaudit.errors import UsageError


@pytest.fixture
def written(tmp_path):
    """Writes a manifest beside four empty files called ``.pt``."""
    (tmp_path / "runs").mkdir()
    for name in ("a.pt", "b.pt", "b[1].pt", "notes.txt"):
        (tmp_path / "runs" / name).write_bytes(b"")
    np.savez(tmp_path / "data.npz", x=np.full((1, 8, 8), 0.5), y=np.zeros(1, int))

    def write(text):
        path = tmp_path / "models.toml"
        path.write_text(text)
        return path

    return write


def test_every_model_on_every_data_set_within_every_threat(written):
    path = written(
        """
        preset = "quick"
        n = 50
        threats = ["linf 8/255", "l2 0.5"]
        [[models]]
        files = "runs/*.pt"
        exclude = "b[[]1].pt"
        data = ["digits", "data.npz"]
        [[models]]
        files = ["runs/b.pt"]
        also = "fast"
        n = 7
        threats = "linf"
        """
    )
    jobs = jobs_of(read_manifest(path))
    folder = path.parent
    table = [(job.source, job.data, job.norm, job.eps, job.n, job.measured) for job in jobs]
    expected = [
        (str(folder / "runs" / name), data, norm, eps, 50, "quick")
        for name in ("a.pt", "b.pt")
        for data in ("digits", str(folder / "data.npz"))
        for norm, eps in (("linf", 8 / 255), ("l2", 0.5))
    ]
    assert table == [
        *expected,
        (str(folder / "runs/b.pt"), "digits", "linf", 0.15, 7, "quick + fast"),
    ]


def test_a_job_listed_twice_is_one_row(written):
    path = written('[[models]]\nfiles = ["runs/a.pt", "runs/*.pt"]\n[[models]]\nfiles="runs/a.pt"')
    sources = [job.source for job in jobs_of(read_manifest(path))]
    assert len(sources) == len(set(sources)) == 3


def test_a_name_with_brackets_is_a_file_before_it_is_a_pattern(written):
    path = written('[[models]]\nfiles = "runs/b[1].pt"')
    assert next(job.source for job in jobs_of(read_manifest(path))).endswith("b[1].pt")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("presets = 'quick'\n[[models]]\nfiles = 'runs/*.pt'", r":1: .*'presets'.*'preset'"),
        ("[[models]]\nfiles = 'x'\n\n[[models]]\nfils = 'x'", r":5: .*'fils'.*'files'"),
        ("[[models]]\nfiles = 'x'\npreset = 'quickly'", r":3: models\.preset: .*'quick'"),
        ("n = 0\n[[models]]\nfiles = 'x'", r":1: n: "),
        ("n = '5'\n[[models]]\nfiles = 'x'", r":1: n: .*integer"),
        ("gap = 1\n[[models]]\nfiles = 'x'", r":1: gap: .*boolean"),
        ("[[models]]\nfiles = ['a', 3]", r":2: models\.files: .*string"),
        ("[[models]]\nfiles = []", r":2: models\.files: "),
        ("[[models]]\narch = 'resnet'", r":1: models: names no model"),
        ("data = ['a', 'b']\ntrain_data = 'x'\n[[models]]\nfiles = 'x'", r"train_data is one"),
        ("preset = 'quick'", r"no table \[\[models\]\]"),
        ("[models]\nfiles = 'x'", r":1: models: .*list"),
        ("models = [", r"is not TOML"),
        (
            "train_data='x'\n[[models]]\nfiles='x'\ndata=['a', 'b']",
            r"the keys above it: train_data",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(written, text, said):
    with pytest.raises(UsageError, match=said) as refused:
        read_manifest(written(text))
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("files = 'runs/x*.pt'", "no checkpoint is .*x"),
        ("files = 'runs/a.pt'\nthreats = 'linv 0.1'", "unknown norm 'linv'.*'linf'"),
        ("files = 'runs/a.pt'\nthreats = 'linf much'", "not a number"),
        ("files = 'runs/a.pt'\nthreats = 'linf -1'", "must be positive"),
        ("files = 'runs/a.pt'\ndata = 'data.npz'\nthreats = 'l1'", "no usual l1 radius"),
        ("files = 'runs/a.pt'\nexclude = '*'", "exclude leaves no model"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(written, text, said):
    with pytest.raises(UsageError, match=said):
        jobs_of(read_manifest(written(f"[[models]]\n{text}")))


def test_relative_paths_are_the_manifests(written, monkeypatch, tmp_path_factory):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    path = written(
        '[[models]]\nfiles = "runs/a.pt"\narch = "nets.py:net"\nmodel_dir = "zoo"\n'
        'data = "imagefolder:val"\nthreats = "linf 0.1"'
    )
    (job,) = jobs_of(read_manifest(path))
    folder = path.parent
    assert (job.arch, job.model_dir) == (f"{folder / 'nets.py'}:net", folder / "zoo")
    assert job.data == f"imagefolder:{folder / 'val'}"


def test_the_command_line_makes_the_same_jobs(written, monkeypatch):
    path = written('preset = "quick"\nthreats = "linf 0.1"\n[[models]]\nfiles = "runs/*.pt"')
    monkeypatch.chdir(path.parent)
    said = {"preset": "quick", "threats": "linf 0.1"}
    assert jobs_of(manifest_of(["runs/*.pt"], **said)) == jobs_of(read_manifest(path))


def test_zoo_queries(written, monkeypatch):
    from robaudit.checkpoints.sources import catalogue as zoo

    entries = tuple(
        zoo.Entry("cifar10", threat, name, ("id",), False, None)
        for threat, name in (("Linf", "Standard"), ("Linf", "Wong2020Fast"), ("L2", "Standard"))
    )
    for module in ("robaudit.batch.listing.catalogue", f"{zoo.__name__}.catalogue"):
        monkeypatch.setattr(module, lambda: entries)
    found = jobs_of(read_manifest(written('[[models]]\nrobustbench = "cifar10/Linf/*"')))
    names = ["robustbench:cifar10/Linf/Standard", "robustbench:cifar10/Linf/Wong2020Fast"]
    assert [job.source for job in found] == names
    with pytest.raises(UsageError, match=r"'Wong2020Fasd'.*'Wong2020Fast'"):
        jobs_of(read_manifest(written('[[models]]\nrobustbench = "cifar10/Linf/Wong2020Fasd"')))
    with pytest.raises(UsageError, match=r"no network that is 'cifar10/Lin/\*'"):
        jobs_of(read_manifest(written('[[models]]\nrobustbench = "cifar10/Lin/*"')))


def test_the_schema_takes_what_is_read():
    import json
    import tomllib

    import jsonschema

    from robaudit.batch.manifest import manifest_schema

    schema = json.loads(manifest_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    good = "data = 'digits'\n[[models]]\nfiles = ['a', 'b']\nthreats = 'linf'\nmember = 'x'"
    jsonschema.validate(tomllib.loads(good), schema)
    for bad in ("[[models]]\nfils = 'x'", "n = 0\n[[models]]\nfiles = 'x'", "data = 'x'"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(tomllib.loads(bad), schema)
