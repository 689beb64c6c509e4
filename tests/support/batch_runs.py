"""Small networks to run; and runs that nobody computed, of as many models as a test wants."""

import random

import torch
from torch import nn

from robaudit.batch import log
from robaudit.batch.directory import REPORT, create
from robaudit.batch.jobs import Job
from robaudit.data import load_examples
from robaudit.report import read_report, write_report
from robaudit.report.jsonfile import to_object
from robaudit.schema import (
    Data,
    Interval,
    Measurement,
    Provenance,
    Report,
    Subject,
    Threat,
)

STAGES = ("attacks", "wci", "average", "worst")


def job(source, norm="linf", eps=8 / 255, **said):
    return Job(source=source, data="cifar10", norm=norm, eps=eps, preset="standard", **said)


def report(source, robust, chance, n=1000, warnings=(), doubts=()):
    """A report in which every measure follows the robust error, with noise."""

    def accuracy(name, value, warnings=(), doubts=()):
        half = 1.96 * (value * (1 - value) / n) ** 0.5
        interval = Interval(
            low=max(0, value - half), high=min(1, value + half), level=0.95, method="wald"
        )
        return Measurement(
            name=name, value=value, unit="fraction", n=n, interval=interval,
            settings={"version": "standard"}, warnings=list(warnings), doubts=list(doubts),
        )  # fmt: skip

    error = 1 - robust
    measures = {
        "loss.robust": 2 * error, "wci": 400 * error, "trace.total": 900 * error,
        "weights.frobenius": 20 + 5 * robust, "flatness.average": error, "flatness.worst": error,
        "trh.top_layer": 3 * error, "hessian.largest": 90 * error, "hessian.trace": 950 * error,
    }  # fmt: skip
    gaps = {"gap.error": 0.4 * error, "gap.loss": error}
    return Report(
        robaudit="0.1.0",
        subject=Subject(
            source=source, sha256=source, format="torch-zip", architecture="resnet18",
            identified_by="its keys and shapes", normalization="none", parameters=11_000_000,
        ),
        data=Data(name="cifar10", split="test", n=n, sha256="d" * 64, classes=10),
        threat=Threat(norm="linf", eps=8 / 255),
        measurements=[
            accuracy("accuracy.clean", 0.85),
            accuracy("accuracy.autoattack", robust, warnings, doubts),
            *(Measurement(name=name, value=value * chance.uniform(0.8, 1.2), n=n)
              for name, value in measures.items()),
            *(Measurement(name=name, value=value * chance.uniform(0.8, 1.2), split="gap")
              for name, value in gaps.items()),
        ],
        provenance=Provenance(
            argv=[], seed=0, started="2026-01-01T00:00:00Z", seconds=60, versions={},
            device="cpu", precision="fp32", batch_size=None,
        ),
    )  # fmt: skip


def finished(folder, count, published=None):
    """A run of ``count`` models, of robust accuracies spread from 0.2 to 0.7."""
    chance = random.Random(0)
    directory = create(folder)
    log.append(directory.journal, "driver", pid=1, workers=2)
    for at in range(count):
        source = f"runs/model_{at:04d}.pt"
        key = f"{at:012d}"
        log_listed(directory, source, key, published or {})
        made = report(source, 0.2 + 0.5 * at / max(1, count - 1), chance)
        log.append(directory.journal, "started", key=key, where="worker 1")
        for stage in STAGES:
            log.append(directory.journal, "stage", key=key, stage=stage, seconds=10.0)
        log_done(directory, key, made, seconds=60.0)
    return directory


def log_done(directory, key, made, seconds=1.0):
    """Finish a listed job with this report."""
    write_report(made, directory.state().folders[key] / REPORT)
    log.append(directory.journal, "done", key=key, seconds=seconds)


def log_listed(directory, source, key, published=None, **said):
    said = job(source, **said).model_dump(mode="json")
    log.append(
        directory.journal, "listed", key=key, job=said, stages=STAGES, published=published or {}
    )


def numbers(report):
    """A report without what differs from run to run."""
    found = to_object(report)
    del found["provenance"]
    for measurement in found["measurements"]:
        del measurement["seconds"]
    return found


def numbers_of(directory, rows):
    """The :func:`numbers` of every row's report."""
    folders = directory.folders(rows)
    return {row.key: numbers(read_report(folders[row.key] / REPORT)) for row in rows}


def linear_network(seed):
    """One layer, trained a little on the digits; another one for another seed."""
    train = load_examples("digits", split="train", n=300)
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    step = torch.optim.SGD(network.parameters(), lr=0.5)
    for _ in range(40):
        step.zero_grad()
        nn.functional.cross_entropy(network(train.x), train.y).backward()
        step.step()
    return network.state_dict()
