"""What robaudit says that the published checkpoints are, told nothing or only the network.

    PYTHONPATH=tests ROBAUDIT_REAL_DATA=FOLDER python -m support.identified

prints the table of docs/explanation/normalization.md.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from robaudit.attacks import pgd
from robaudit.checkpoints import load, samples_dir
from robaudit.data import deciding_examples
from robaudit.errors import OpenQuestionError
from robaudit.types import ThreatModel, radius

REAL = Path(os.environ.get("ROBAUDIT_REAL_DATA", "nowhere")).expanduser().absolute()
NETWORKS = Path(__file__).with_name("published_networks.py")
CIFAR, MNIST = "cifar10_test_first1017.npz", "mnist_test.npz"


@dataclass(frozen=True)
class Known:
    """A published checkpoint, what was trained, and what robaudit is told."""

    file: str
    data: str
    eps: float
    truth: str
    factory: str = ""
    activation: str = "relu"


KNOWN = (
    Known("trades_mnist_smallcnn.pt", MNIST, 0.3, "none"),
    Known("sdp_mnist_cnn_a_adv.model", MNIST, 0.3, "none"),
    Known("colt_mnist01.pt", MNIST, 0.1, "mnist", "Colt"),
    Known("eran_cifar_conv_small_pgd.pth", CIFAR, 2 / 255, "cifar10"),
    Known("abc_sigmoid.pth", CIFAR, 2 / 255, "cifar10", activation="sigmoid"),
    Known("sdp_cifar_cnn_a_adv.model", CIFAR, 2 / 255, "crown"),
    Known("sdp_cifar_cnn_a_mix.model", CIFAR, 2 / 255, "crown"),
    Known("mnbab_resnet_2b2_bn_sadv8.pth", CIFAR, 4 / 255, "cifar10-moments", "resnet_2b2"),
    Known("vnn_resnet4b.pth", CIFAR, 2 / 255, "cifar10-moments", "ResNet4B"),
    Known("preact_resnet18_cifar10_linf8.pt", CIFAR, 8 / 255, "cifar10-moments"),
    Known("run_smallnet/ckpt_15.pth", CIFAR, 8 / 255, "cifar10-moments", "smallnet"),
)
SAMPLES = ("standard.pt", "robust.pt", "overfit.pt", "trades.safetensors", "smooth.safetensors")


def bare_sample(name, folder):
    """A bundled sample without its records."""
    source = samples_dir() / name
    if source.suffix == ".safetensors":
        state = load_file(source)
    else:
        state = torch.load(source, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state.get("model", state))
    path = Path(folder) / f"{source.stem}.pt"
    torch.save(state, path)
    return path


def judge(path, data, threat, **said):
    """The classifier, or the error that says what is open."""
    examples = deciding_examples(str(data))
    try:
        return load(path, device="cpu", examples=examples, threat=threat, **said), examples
    except OpenQuestionError as error:
        return error, examples


def robust_accuracy(model, examples, threat, n=1000):
    """PGD-10's on the first n."""
    few = examples.taken(slice(n))
    found = pgd(model, few.x, few.y, threat, steps=10, index=few.index)
    return float(found.robust.double().mean())


def row(known):
    """The cells of one checkpoint."""
    threat = ThreatModel("linf", known.eps)
    path = REAL / "checkpoints" / known.file
    told = {"arch": f"{NETWORKS}:{known.factory}"} if known.factory else {}
    found, examples = judge(path, REAL / known.data, threat, **told)
    cells = [f"`{known.file}`", "network" if known.factory else "nothing", radius(known.eps)]
    if isinstance(found, OpenQuestionError):
        left = [line.split("  ")[0] for line in found.candidates[1:] if "%" in line]
        return [*cells, f"open: {', '.join(f'`{name}`' for name in left)}", f"`{known.truth}`", ""]
    normalization = found.origin.normalization
    taken = robust_accuracy(found, examples, threat)
    arch = told.get("arch", found.origin.architecture)
    truth = load(path, arch=arch, normalize=known.truth, device="cpu")
    true = robust_accuracy(truth, examples, threat)
    state = "harmless" if found.origin.harmless else "determined"
    return [*cells, f"{state}: `{normalization}`", f"`{known.truth}`", f"{taken:.1%} / {true:.1%}"]


def write(rows):
    for cells in rows:
        sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


def main():
    heads = ["checkpoint", "told", "eps", "found", "true", "PGD-10 of both"]
    write([heads, ["---"] * len(heads)])
    for known in KNOWN:
        if len(sys.argv) > 1 and known.file not in sys.argv[1:]:
            continue
        write([row(known)])
    if len(sys.argv) > 1:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in SAMPLES:
            found, _ = judge(bare_sample(name, folder), "digits", ThreatModel("linf", 0.15))
            said = "open" if isinstance(found, OpenQuestionError) else found.origin.normalization
            cells = [f"`{name}` without its record", "nothing", "0.15", f"`{said}`", "`none`", ""]
            write([cells])


if __name__ == "__main__":
    main()
