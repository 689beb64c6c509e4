"""Hessian products for the largest eigenvalue: Lanczos against PyHessian's power iteration."""

from __future__ import annotations

import copy
import importlib
from dataclasses import dataclass

import pooled
import torch
from torch.func import functional_call
from torch.nn import functional as F

from robaudit.curvature.largest import curved_direction
from robaudit.curvature.products import hessian_product
from robaudit.curvature.thick_restart import extremes
from robaudit.engine import frozen, generator

TOLERANCE = 1e-3
# Products at most; Lanczos makes room for them at the start.
MOST, MOST_POWER = 100, 300


@dataclass(frozen=True)
class Found:
    """How an eigenvector was had and how good it is.

    Attributes:
        products: Hessian products spent; at the most allowed, the residual is larger than asked.
        eigenvalue: as the method itself reports it.
        residual: ``||H u - (u . H u) u|| / |u . H u|`` by an independent product in float64.
    """

    products: int
    eigenvalue: float
    residual: float


def lanczos(model, x, y, random):
    """Until the method's own bound says ``TOLERANCE``; the vector from the space it has spanned.

    Args:
        random: seed of a random start, as :func:`robaudit.curvature.spectrum` has; ``None`` for
            the start of :func:`robaudit.curvature.largest_eigenvalue`, which is not random.
    """
    spanned = []
    with frozen(model):
        product = hessian_product(model, x, y)

        def kept(v):
            spanned.append((v.clone(), product(v)))
            return spanned[-1][1]

        start = curved_direction(model, x)
        if random is not None:
            signs = torch.randint(2, start.shape, generator=generator(random, "lanczos", 0)) * 2 - 1
            start = signs.to(start)
        found = extremes(kept, start, MOST, largest=1, tolerance=TOLERANCE)
    space = torch.stack([v for v, _ in spanned])
    projected = space.double() @ torch.stack([image for _, image in spanned]).double().T
    _, vectors = torch.linalg.eigh((projected + projected.T) / 2)
    return found.products, float(found.eigenvalues[-1]), vectors[:, -1].to(space) @ space


class Stop(Exception):  # noqa: N818
    """A residual small enough."""


def power(model, x, y, seed, to_residual):
    """PyHessian's own iteration: to its own stop at its defaults, or to the residual."""
    module = importlib.import_module("pyhessian.hessian")

    inner, products, last = module.hessian_vector_product, 0, None

    def counted(gradients, parameters, v):
        nonlocal products, last
        product = inner(gradients, parameters, v)
        products += 1
        flat, image = flattened(v), flattened(product)
        value = float(flat @ image)
        last = value, flat
        if to_residual and float((image - value * flat).norm()) <= TOLERANCE * abs(value):
            raise Stop
        return product

    module.hessian_vector_product = counted
    torch.manual_seed(seed)
    try:
        with pooled.pyhessian(model, x, y) as peer:
            if not to_residual:
                values, (vector,) = peer.eigenvalues()
                return products, values[0], flattened(vector)
            peer.eigenvalues(maxIter=MOST_POWER, tol=0)
    except Stop:
        pass
    finally:
        module.hessian_vector_product = inner
    return products, *last


def flattened(parts):
    return torch.cat([part.detach().double().reshape(-1) for part in parts])


def residual(model, x, y, vector):
    """In float64, forward over reverse: neither method's arithmetic and neither's code."""
    wide = copy.deepcopy(model).double().requires_grad_(False)
    names = [name for name, _ in wide.named_parameters()]
    sizes = [parameter.numel() for parameter in wide.parameters()]
    point = tuple(parameter.detach() for parameter in wide.parameters())
    unit = vector.double() / vector.double().norm()
    direction = tuple(
        part.view_as(parameter) for part, parameter in zip(unit.split(sizes), point, strict=True)
    )
    product = torch.zeros_like(unit)
    for images, labels in zip(x.double().split(250), y.split(250), strict=True):

        def loss(*values, images=images, labels=labels):
            weights = dict(zip(names, values, strict=True))
            return F.cross_entropy(
                functional_call(wide, weights, (images,)), labels, reduction="sum"
            )

        gradient = torch.func.grad(loss, argnums=tuple(range(len(point))))
        product += flattened(torch.func.jvp(gradient, point, direction)[1])
    product /= len(x)
    value = unit @ product
    return float((product - value * unit).norm() / value.abs())


def compare(case, seeds=3):
    """Print the products, and the worst residual of each, over some start vectors."""
    model, x, y = case.model, case.x, case.y
    methods = {
        "robaudit, random start": lambda seed: lanczos(model, x, y, seed),
        "robaudit, its own start": lambda seed: lanczos(model, x, y, None),
        "PyHessian to that residual": lambda seed: power(model, x, y, seed, True),
        "PyHessian to its own stop": lambda seed: power(model, x, y, seed, False),
    }
    print(f"  largest eigenvalue to a residual of {TOLERANCE:g}, {seeds} start vectors")
    spent = {}
    for name, method in methods.items():
        found = []
        for seed in range(1 if name.endswith("own start") else seeds):
            products, value, vector = method(seed)
            found.append(Found(products, value, residual(model, x, y, vector)))
        spent[name] = sum(one.products for one in found) / len(found)
        print(
            f"    {name:27s} products {', '.join(str(one.products) for one in found):20s} "
            f"eigenvalue {found[0].eigenvalue:.4g}, "
            f"residual in float64 {max(one.residual for one in found):.1e}"
        )
    random, ours, to_residual, _ = spent.values()
    print(
        f"    products against PyHessian's to that residual   1/{to_residual / ours:.1f}, "
        f"from random starts 1/{to_residual / random:.1f}\n"
    )
