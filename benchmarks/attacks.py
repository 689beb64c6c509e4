"""AutoAttack, its fast tier and PGD against the libraries that users have, in one run.

    python benchmarks/attacks.py [--n 75] [--cnn 133] [--resnet 64]
    python benchmarks/attacks.py --verdicts

*AutoAttack*: ``pyautoattack`` alone on the classifier, the same library through robaudit's engine,
robaudit's native ensemble, and the fast tier, with the verdicts they give: on the sample network
``robust.pt`` and, where ``ROBAUDIT_REAL_DATA`` names the folder that holds it, on a published
CIFAR-10 network (CNN-A). The native attacks work on tiles of 64 images, so the numbers of images
are such that about that many withstand. *ResNet-18*, a batch-norm network that comes with
``pyautoattack``: the same, with a twentieth of the iterations and queries on both sides. *PGD-20*
on a network that it breaks: against ``torchattacks``, where that is installed. *Verdicts*
(``--verdicts``, no times): whole ensembles on more networks and norms.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

import robaudit as ra
from robaudit.attacks import apgd, autoattack, fab, fast, native_autoattack, pgd, square
from robaudit.checkpoints import samples_dir
from robaudit.engine import Runner, accelerate, frozen

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
CPU = torch.device("cpu")


def timed(run):
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def apart(run, *given):
    """``timed`` in a process of its own, as its users run it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_timed_there, torch.get_num_threads(), run, given).result()


def _timed_there(threads, run, given):
    torch.set_num_threads(threads)
    return timed(lambda: run(*given))


def reference(forward, threat, shorter=1):
    from pyautoattack import AutoAttack

    attack = AutoAttack(
        forward, norm=NORMS[threat.norm], eps=threat.eps, seed=0, version="standard", device="cpu"
    )
    for part in (attack.apgd, attack.apgd_targeted):
        part.n_iter = part.n_iter_orig = 100 // shorter
    attack.fab.n_iter //= shorter
    attack.square.n_queries //= shorter
    return attack


def alone(forward, x, y, threat, shorter=1):
    adv, predicted = reference(forward, threat, shorter).run_standard_evaluation(
        x, y, batch_size=250
    )
    del adv
    return predicted == y


def through_engine(attack_with, model, x, y, threat, precision="fp32"):
    with frozen(model):
        forward = accelerate(model, x.shape[1:], precision).forward
        return attack_with(Runner(forward, CPU), x, y, threat)


def ensembles(name, model, x, y, threat):
    with frozen(model):
        base, theirs = apart(alone, model, x, y, threat)
    print(f"{name}: {len(x)} images, {threat.norm} {threat.eps:.4g}")
    print(f"  {'pyautoattack alone':36} {base:8.1f} s   accuracy {100 * share(theirs):5.1f} %")
    rows = {
        "pyautoattack through the engine": lambda: autoattack(model, x, y, threat),
        "native": lambda: through_engine(native_autoattack, model, x, y, threat),
        "native, searching in bf16": lambda: through_engine(
            native_autoattack, model, x, y, threat, "bf16"
        ),
        "native, original network": lambda: native_autoattack(model, x, y, threat),
        "fast": lambda: through_engine(fast, model, x, y, threat),
        "fast, original network": lambda: fast(model, x, y, threat),
    }
    for label, run in rows.items():
        spent, found = timed(run)
        differ = int((found.robust != theirs).sum())
        print(
            f"  {label:36} {spent:8.1f} s   accuracy {100 * share(found.robust):5.1f} %, "
            f"{differ} verdicts differ   ratio {spent / base:.2f}"
        )
    print()


def shortened(name, model, x, y, threat, shorter=20):
    """The same with a part of the iterations and queries on both sides, for large networks."""

    def native(precision):
        with frozen(model):
            runner = Runner(accelerate(model, x.shape[1:], precision).forward, CPU)
            steps, queries = 100 // shorter, 5000 // shorter
            stands = torch.ones(len(x), dtype=torch.bool)
            for attack in (
                lambda a, b: apgd(runner, a, b, threat, steps=steps),
                lambda a, b: apgd(runner, a, b, threat, loss="dlr", targets=9, steps=steps),
                lambda a, b: fab(runner, a, b, threat, targets=9, steps=steps, mode="accuracy"),
                lambda a, b: square(runner, a, b, threat, queries=queries),
            ):
                left = stands.nonzero()[:, 0]
                if len(left):
                    stands[left] = attack(x[left], y[left]).robust
            return stands

    with frozen(model):
        base, theirs = apart(alone, model, x, y, threat, shorter)
        engine = accelerate(model, x.shape[1:])
        rows = {
            f"through the engine ({', '.join(engine.used)})": lambda: alone(
                engine.forward, x, y, threat, shorter
            ),
            "native": lambda: native("fp32"),
            "native, searching in bf16": lambda: native("bf16"),
        }
        print(
            f"{name}: {len(x)} images, {threat.norm} {threat.eps:.4g}, "
            f"1/{shorter} of the iterations and queries"
        )
        print(f"  {'pyautoattack alone':60} {base:8.1f} s   {100 * share(theirs):5.1f} %")
        for label, run in rows.items():
            spent, ours = timed(run)
            print(
                f"  {label:60} {spent:8.1f} s   {100 * share(ours):5.1f} %, "
                f"{int((ours != theirs).sum())} verdicts differ   ratio {spent / base:.2f}",
                flush=True,
            )
    print()


def verdicts(name, model, x, y, threat):
    """Robust accuracy under the whole ensemble, the reference's and ours, and where they differ."""
    with frozen(model):
        theirs = alone(model, x, y, threat)
    ours = through_engine(native_autoattack, model, x, y, threat).robust
    lost, held = (~ours & theirs).nonzero()[:, 0], (ours & ~theirs).nonzero()[:, 0]
    print(
        f"{name}, {len(x)} images, {threat.norm} {threat.eps:.4g}: pyautoattack "
        f"{100 * share(theirs):.1f} %, native {100 * share(ours):.1f} %; broken by ours alone "
        f"{lost.tolist()}, by theirs alone {held.tolist()}",
        flush=True,
    )


def torchattacks_pgd(model, x, y, threat):
    """Robust accuracy's outcomes and the least time of three runs."""
    import torchattacks

    theirs = torchattacks.PGD(model, eps=threat.eps, alpha=threat.eps / 4, steps=20)

    def run():
        adv = torch.cat([theirs(a, b) for a, b in zip(x.split(250), y.split(250), strict=True)])
        with torch.no_grad():
            return model(adv).argmax(1) == y

    return min((timed(run) for _ in range(3)), key=lambda pair: pair[0])


def against_torchattacks(name, model, x, y, threat):
    if find_spec("torchattacks") is None:
        print("torchattacks is not installed: no comparison of PGD\n")
        return
    model.requires_grad_(True)
    base, left = apart(torchattacks_pgd, model, x, y, threat)[1]
    model.requires_grad_(False)
    spent, found = min(
        (timed(lambda: pgd(model, x, y, threat, steps=20, mode="accuracy")) for _ in range(3)),
        key=lambda pair: pair[0],
    )
    print(f"{name}: PGD-20 on {len(x)} images, {threat.norm} {threat.eps:.4g}")
    print(f"  torchattacks {base:8.2f} s   accuracy {100 * share(left):5.1f} %")
    print(
        f"  robaudit     {spent:8.2f} s   accuracy {100 * share(found.robust):5.1f} %"
        f"   ratio {spent / base:.2f}\n"
    )


def share(robust):
    return float(robust.double().mean())


def cifar(folder, n):
    data = np.load(folder / "cifar10_test_first1017.npz")
    return torch.tensor(data["x"][:n]).float() / 255, torch.tensor(data["y"][:n]).long()


class Steep(torch.nn.Module):
    """Logits so large that cross-entropy saturates in float32: gradients are masked."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return 1e5 * self.model(x)


def cnn_a(real):
    return ra.load(
        real / "checkpoints" / "sdp_cifar_cnn_a_adv.model",
        arch=f"{Path(__file__).parents[1] / 'tests/support/published_networks.py'}:cnn_a",
        normalize="crown",
        device="cpu",
    )


def all_verdicts(real):
    digits, robust = ra.load_examples("digits"), ra.load(samples_dir() / "robust.pt", device="cpu")
    few = digits.x[:75], digits.y[:75]
    for norm, eps in (("linf", 0.15), ("l2", 0.6), ("l1", 1.5)):
        verdicts("digits, robust.pt", robust, *few, ra.ThreatModel(norm, eps))
    linf = ra.ThreatModel("linf", 0.15)
    verdicts("digits, trades", ra.load(samples_dir() / "trades.safetensors"), *few, linf)
    verdicts("digits, robust.pt with masked gradients", Steep(robust), *few, linf)
    if not real:
        return
    model = cnn_a(real)
    for norm, eps in (("linf", 2 / 255), ("l2", 0.25), ("l1", 3.0)):
        verdicts("CIFAR-10, CNN-A", model, *cifar(real, 100), ra.ThreatModel(norm, eps))
    mnist = ra.load_examples(str(real / "mnist_test.npz"), n=64)
    trades = ra.load(real / "checkpoints" / "trades_mnist_smallcnn.pt", device="cpu")
    verdicts("MNIST, TRADES", trades, mnist.x, mnist.y, ra.ThreatModel("linf", 0.3))


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--n", type=int, default=75)
    options.add_argument("--cnn", type=int, default=133)
    options.add_argument("--resnet", type=int, default=64)
    options.add_argument("--verdicts", action="store_true")
    given = options.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads\n")
    found = os.environ.get("ROBAUDIT_REAL_DATA")
    real = Path(found) if found else None
    if given.verdicts:
        all_verdicts(real)
        return
    digits = ra.load_examples("digits")
    linf = ra.ThreatModel("linf", 0.15)
    if given.n:
        x, y = digits.x[: given.n], digits.y[: given.n]
        robust = ra.load(samples_dir() / "robust.pt", device="cpu")
        ensembles("digits, robust.pt", robust, x, y, linf)
        standard = ra.load(samples_dir() / "standard.pt", device="cpu")
        against_torchattacks("digits, standard.pt", standard, digits.x, digits.y, linf)
    if not real:
        return
    if given.cnn:
        threat = ra.ThreatModel("linf", 2 / 255)
        ensembles("CIFAR-10, CNN-A", cnn_a(real), *cifar(real, given.cnn), threat)
    import pyautoattack

    file = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    if file.is_file() and given.resnet:
        resnet = ra.load(file, normalize="none", device="cpu")
        tiny = ra.ThreatModel("linf", 0.25 / 255)
        shortened("CIFAR-10, ResNet-18", resnet, *cifar(real, given.resnet), tiny)


if __name__ == "__main__":
    main()
