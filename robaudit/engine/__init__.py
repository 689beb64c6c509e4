"""How a classifier is run: device, batches, precision and random draws.

Results depend on the weights, the examples and the seed, and not on the batch size or on the other
examples in a batch: bit for bit on a CPU, up to the rounding of the library's kernels on a GPU.
"""

from robaudit.engine.acceleration import Accelerated, accelerate
from robaudit.engine.device import device_of, devices_of, resolve_device, resolve_devices, spread
from robaudit.engine.edges import JustInside, edge_nudge, sighted
from robaudit.engine.effective import (
    effective,
    effective_notes,
    idle_note,
    idle_parameters,
    in_float64,
    kept_entries,
)
from robaudit.engine.freezing import evaluating, frozen
from robaudit.engine.precision import Arithmetic, Asked, Precision, arithmetic
from robaudit.engine.runner import TILE, Runner
from robaudit.engine.seeding import generator, normal_rows, seed_for, sign_rows, uniform_rows
from robaudit.engine.straight import StraightThrough, straight_through
from robaudit.engine.voting import Voted, draws_at_random, voted

__all__ = [
    "TILE",
    "Accelerated",
    "Arithmetic",
    "Asked",
    "JustInside",
    "Precision",
    "Runner",
    "StraightThrough",
    "Voted",
    "accelerate",
    "arithmetic",
    "device_of",
    "devices_of",
    "draws_at_random",
    "edge_nudge",
    "effective",
    "effective_notes",
    "evaluating",
    "frozen",
    "generator",
    "idle_note",
    "idle_parameters",
    "in_float64",
    "kept_entries",
    "normal_rows",
    "resolve_device",
    "resolve_devices",
    "seed_for",
    "sighted",
    "sign_rows",
    "spread",
    "straight_through",
    "uniform_rows",
    "voted",
]
