"""Peak memory of exact layer traces on wide residual networks.

    python benchmarks/memory.py

Each case runs in a process of its own; its peak is the largest resident size less what the network
itself and everything loaded took before.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

GB = 1e9
# Depth, width, images, and the bytes granted, if any.
CASES = ((28, 10, 16, None), (28, 10, 16, 1e9), (70, 16, 1, None), (70, 16, 1, 2e9))


def measure(depth, width, images, granted):
    import torch

    from robaudit.checkpoints.architectures import ARCHITECTURES
    from robaudit.curvature import layer_traces

    torch.manual_seed(0)
    model = ARCHITECTURES["wide_resnet"].factory(depth=depth, width=width).eval()
    x, y = torch.rand(images, 3, 32, 32), torch.zeros(images).long()
    before, start = resident(), time.perf_counter()
    found = layer_traces(model, x, y, estimator="exact", memory=granted)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"WideResNet-{depth}-{width}, {images} images, {len(found.layers)} layers, "
        f"{4 * parameters / GB:.2f} GB of parameters, "
        f"memory {'not set' if granted is None else f'{granted / GB:g} GB'}: "
        f"peak {(resident() - before) / GB:.2f} GB beside the network, "
        f"{resident() / GB:.2f} GB in all, {time.perf_counter() - start:.0f} s"
    )


def resident():
    """Bytes, the largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    if len(sys.argv) > 1:
        depth, width, images, granted = map(int, sys.argv[1:])
        measure(depth, width, images, granted or None)
    else:
        for case in CASES:
            numbers = [str(int(number or 0)) for number in case]
            subprocess.run([sys.executable, __file__, *numbers], check=True)
